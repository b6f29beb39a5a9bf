//! Answers: JSON, and one form for everything that says no.

use std::time::Duration;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::broker::BrokerError;
use crate::broker::remote::wire::{ErrorReport, LineError};

/// An answer that says no.
#[derive(Debug)]
pub struct Refused {
    pub status: StatusCode,
    /// When to ask again at the soonest, where that is known better than [`usual_wait`] does.
    pub retry_after: Option<Duration>,
    pub report: ErrorReport,
}

/// When a request that got this status may be sent again; `None` where that would not help.
fn usual_wait(status: StatusCode) -> Option<Duration> {
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Some(Duration::from_secs(1))
        }
        // Retention makes room now and then, and people take longer still.
        StatusCode::INSUFFICIENT_STORAGE => Some(Duration::from_secs(30)),
        _ => None,
    }
}

/// An answer with this status and reason.
pub fn error(status: StatusCode, reason: impl Into<String>) -> Refused {
    Refused {
        status,
        retry_after: None,
        report: ErrorReport {
            error: reason.into(),
            ..ErrorReport::default()
        },
    }
}

/// An answer that names the lines of the request that are at fault.
pub fn bad_lines(reason: String, lines: Vec<LineError>) -> Refused {
    Refused {
        status: StatusCode::BAD_REQUEST,
        retry_after: None,
        report: ErrorReport {
            error: reason,
            lines,
            ..ErrorReport::default()
        },
    }
}

impl From<BrokerError> for Refused {
    fn from(error: BrokerError) -> Self {
        let status = match &error {
            BrokerError::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
            BrokerError::UnknownTopic(_) => StatusCode::NOT_FOUND,
            BrokerError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            BrokerError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            BrokerError::DiskFull(_) => StatusCode::INSUFFICIENT_STORAGE,
            BrokerError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BrokerError::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
            BrokerError::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
        };
        let retry_after = match &error {
            BrokerError::Overloaded { retry_after, .. } => Some(*retry_after),
            _ => None,
        };
        Self {
            status,
            retry_after,
            report: ErrorReport::from(&error),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.report)).into_response();
        if let Some(wait) = self.retry_after.or(usual_wait(self.status)) {
            // Whole seconds; none would mean at once.
            let seconds = wait.as_millis().div_ceil(1000).clamp(1, u64::MAX.into()) as u64;
            let seconds = HeaderValue::from(seconds);
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}
