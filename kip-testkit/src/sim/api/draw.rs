//! What goes wrong with an API server, drawn from a seed. By itself, so that the rest of a story is the same with and without one.

use crate::sim::rng::{Rng, mix};
use crate::sim::scenario::{Fault, How, Kind, Op, WatchHarm};

/// Sets these draws apart from those of the rest of the story.
const SALT: u64 = 0xa91;

/// Adds what goes wrong with the API server.
pub(in crate::sim) fn draw(seed: u64, horizon_ms: u64, pods: u32, faults: &mut Vec<Fault>) {
    let mut rng = Rng::new(mix(seed ^ SALT));
    for _ in 0..rng.small(0, 4) {
        faults.push(Fault::Watch {
            nth: rng.small(1, 4),
            after_ms: rng.between(0, horizon_ms / 3),
            harm: match rng.small(0, 2) {
                0 => WatchHarm::Break,
                1 => WatchHarm::Gone,
                _ => WatchHarm::Lag {
                    ms: rng.pick(&[500, 5_000, 40_000]),
                },
            },
        });
    }
    for _ in 0..rng.small(0, 3) {
        let op = rng.pick(&[Op::ListPods, Op::WatchPods, Op::Tell, Op::Publish, Op::Exists]);
        let kind = rng.pick(&[
            Kind::Unavailable,
            Kind::Timeout,
            Kind::RateLimited,
            Kind::Denied,
            Kind::Unexpected,
        ]);
        let how = match rng.small(0, 3) {
            0 => How::Slow(rng.pick(&[2_000, 20_000, 58_000])),
            1 => How::LostReply(kind),
            _ => How::Fail(kind),
        };
        let often = if matches!(op, Op::ListPods | Op::WatchPods) {
            3
        } else {
            pods * 4
        };
        faults.push(Fault::Call {
            op,
            nth: rng.small(1, often.max(1)),
            how,
        });
    }
}
