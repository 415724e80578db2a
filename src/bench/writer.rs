//! One patient writer: measures for how long a cluster takes no write, as a client sees it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::keys::Random;
use super::load::Load;
use super::meter::Meter;

/// Pause after a write that failed: short against any gap that is worth telling.
const PAUSE: Duration = Duration::from_millis(2);

/// Writes one key after the other, each until it is acknowledged or given up by the SDK.
pub(crate) async fn patient(load: Arc<Load>, meter: Arc<Meter>, seed: u64) {
    let mut random = Random::new(seed);
    while !meter.has_ended() {
        let key = load.keys.key(load.keys.draw(&mut random));
        let started = Instant::now();
        let answer = load.client.put(key, load.value.clone()).await.map(drop);
        meter.report(0, started, Instant::now(), &answer);
        if answer.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
