//! Waits until something is left alone: an editor writes a file in several steps, and a build more.

use std::time::Duration;

use tokio::time::Instant;

/// How long it must stay as it is.
const QUIET: Duration = Duration::from_millis(200);
/// How often it is looked at until then, at least.
const LOOK: Duration = Duration::from_millis(20);

/// What `look` sees once it has seen the same for 200 ms; `None` as soon as it sees nothing any more.
pub async fn settled<T: PartialEq, F>(look: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = Option<T>>,
{
    let mut seen = look().await?;
    let mut since = Instant::now();
    loop {
        // By the clock: a look takes time, too.
        let left = QUIET.saturating_sub(since.elapsed());
        if left.is_zero() {
            return Some(seen);
        }
        tokio::time::sleep(LOOK.min(left)).await;
        let now = look().await?;
        if now != seen {
            since = Instant::now();
        }
        seen = now;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Each look sees the next of these, and then the last one for ever.
    fn looks(script: &[Option<u32>]) -> impl Fn() -> std::future::Ready<Option<u32>> {
        let left = Mutex::new(script.to_vec());
        move || {
            let mut left = left.lock().expect("no panic");
            let next = left[0];
            if left.len() > 1 {
                left.remove(0);
            }
            std::future::ready(next)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_begins_anew_with_each_change() {
        let begun = Instant::now();
        assert_eq!(settled(looks(&[Some(1)])).await, Some(1));
        assert_eq!(begun.elapsed(), QUIET);
        let begun = Instant::now();
        let script = [Some(1), Some(1), Some(1), Some(2), Some(3)];
        assert_eq!(settled(looks(&script)).await, Some(3));
        assert_eq!(begun.elapsed(), QUIET + 4 * LOOK);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_is_not_waited_for() {
        assert_eq!(settled(looks(&[Some(1), None])).await, None);
    }
}
