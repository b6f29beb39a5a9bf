//! Answers: JSON, and one form for everything that says no.

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
    pub report: ErrorReport,
}

/// An answer with this status and reason.
pub fn error(status: StatusCode, reason: impl Into<String>) -> Refused {
    Refused {
        status,
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
        };
        Self {
            status,
            report: ErrorReport::from(&error),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.report)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = HeaderValue::from_static("1");
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}
