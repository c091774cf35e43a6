//! Every request to the apiserver but the Lease's: paced by one token bucket, and bounded in time.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

/// kube's client retries 429 and 503 for minutes by itself; nothing here may wait as long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What an idle operator may send at once, in seconds of its rate.
const BURST_SECONDS: f64 = 2.0;

/// A request that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No answer in time.
    #[error("the apiserver did not answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// Refused or failed.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

impl RequestError {
    /// The HTTP status that the apiserver gave, if it answered.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Kube(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }
}

/// The way to the apiserver.
#[derive(Debug)]
pub struct Requests {
    per_second: f64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// Tokens at most: one at least, or nobody's turn would ever come.
fn most(per_second: f64) -> f64 {
    (per_second * BURST_SECONDS).max(1.0)
}

impl Requests {
    /// At most `per_second` requests on average.
    pub fn new(per_second: f64) -> Self {
        let bucket = Bucket { tokens: most(per_second), filled: Instant::now() };
        Self { per_second, bucket: Mutex::new(bucket) }
    }

    /// Requests a second, on average.
    pub fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Wait for a turn. First come, first served: the lock is fair and held while waiting.
    pub async fn turn(&self) {
        let mut bucket = self.bucket.lock().await;
        loop {
            let now = Instant::now();
            let earned = now.duration_since(bucket.filled).as_secs_f64() * self.per_second;
            bucket.tokens = (bucket.tokens + earned).min(most(self.per_second));
            bucket.filled = now;
            if bucket.tokens >= 1.0 {
                bucket.tokens -= 1.0;
                return;
            }
            sleep(Duration::from_secs_f64((1.0 - bucket.tokens) / self.per_second)).await;
        }
    }

    /// Wait for a turn, then send.
    pub async fn send<T>(
        &self,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, RequestError> {
        self.turn().await;
        send_now(request).await
    }
}

/// Send, after a [`turn`](Requests::turn).
pub async fn send_now<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, RequestError> {
    timeout(TIMEOUT, request).await.map_err(|_| RequestError::TimedOut)?.map_err(RequestError::from)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::Requests;

    #[tokio::test(start_paused = true)]
    async fn the_slowest_rate_still_gets_its_turns() {
        let requests = Requests::new(0.1);
        let start = Instant::now();
        for _ in 0..3 {
            requests.turn().await;
        }
        assert_eq!(start.elapsed().as_secs(), 20);
    }

    #[tokio::test]
    async fn a_burst_is_bounded_and_the_rate_is_kept() {
        let requests = Requests::new(100.0);
        let start = Instant::now();
        for _ in 0..250 {
            requests.turn().await;
        }
        let seconds = start.elapsed().as_secs_f64();
        assert!((0.45..1.5).contains(&seconds), "{seconds}");
    }
}
