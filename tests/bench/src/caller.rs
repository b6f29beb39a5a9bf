//! A caller of the runtime's HTTP interface that keeps its connection: a new one for each request would
//! be part of each delay.

use std::time::Duration;

use anyhow::{Context, Result};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const MOST: u64 = 64 << 20;

/// See the module.
pub struct Caller {
    agent: ureq::Agent,
    admin: String,
}

impl Caller {
    /// Of the runtime at `host:port`.
    pub fn new(admin: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE));
        Self {
            agent: ureq::Agent::new_with_config(config.build()),
            admin: admin.to_owned(),
        }
    }

    /// The answer to `GET path`: status and body. Any status is an answer.
    ///
    /// # Errors
    /// Nothing answers.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let url = self.url(path);
        read(self.agent.get(&url).call(), &url)
    }

    /// Posts JSON lines, and returns status and body. Any status is an answer.
    ///
    /// # Errors
    /// Nothing answers: whether the lines were taken is not known.
    pub fn post_lines(&self, path: &str, lines: &str) -> Result<(u16, String)> {
        let url = self.url(path);
        let request = self.agent.post(&url);
        let request = request.header("content-type", "application/x-ndjson");
        read(request.send(lines), &url)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }
}

type Answer = Result<ureq::http::Response<ureq::Body>, ureq::Error>;

/// To its end, or the connection cannot be kept.
fn read(answer: Answer, url: &str) -> Result<(u16, String)> {
    let mut answer = answer.with_context(|| url.to_owned())?;
    let body = answer.body_mut().with_config().limit(MOST);
    let body = body.read_to_string().with_context(|| url.to_owned())?;
    Ok((answer.status().as_u16(), body))
}

#[cfg(test)]
mod tests {
    use millstream_test_support::origin::Origin;

    use super::*;

    #[test]
    fn one_connection_serves_many_requests() {
        let origin = Origin::start().unwrap();
        let caller = Caller::new(&origin.address());
        for _ in 0..5 {
            assert_eq!(caller.get("/status/204").unwrap(), (204, String::new()));
            let (status, said) = caller.post_lines("/echo", "{}\n").unwrap();
            assert!(status == 200 && said.ends_with("body: 3"), "{said}");
        }
        assert_eq!((origin.requests(), origin.connections()), (10, 1));
    }
}
