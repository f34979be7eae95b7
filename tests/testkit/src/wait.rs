//! Waiting for something that happens elsewhere, with a bound.

use std::time::Duration;

/// How often the predicate is asked.
const STEP: Duration = Duration::from_millis(2);

/// Waits until `predicate` holds.
///
/// # Panics
/// When it does not hold within `bound`.
pub async fn wait_until(bound: Duration, mut predicate: impl AsyncFnMut() -> bool) {
    let held = tokio::time::timeout(bound, async {
        while !predicate().await {
            tokio::time::sleep(STEP).await;
        }
    })
    .await;
    assert!(held.is_ok(), "waited {bound:?} in vain");
}
