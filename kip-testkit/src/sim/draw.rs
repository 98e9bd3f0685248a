//! From a seed to a story. All chance is here.

use super::rng::Rng;
use super::scenario::{
    Fault, Foreign, Harm, How, Kind, NEVER_FITS, OfferingPlan, Op, Params, Part, PodPlan, Restart, Scenario,
    Side, Throttle, Work,
};

/// The story of a seed.
pub fn scenario(seed: u64, side: Side) -> Scenario {
    let mut rng = Rng::new(seed);
    let calm = rng.chance(8);
    let count = rng.small(4, if calm { 6 } else { 14 });
    let horizon_ms = rng.pick(&[180_000, 420_000, 900_000, 1_500_000]);
    let world = params(&mut rng, calm, horizon_ms);
    let pods = (0..count).map(|n| pod(&mut rng, n, horizon_ms, calm)).collect();
    let mut faults = Vec::new();
    if !calm {
        draw_faults(&mut rng, &world, count, &mut faults);
        if side == Side::Api {
            super::api::draw(seed, horizon_ms, count, &mut faults);
        }
    }
    Scenario {
        seed,
        about: String::new(),
        side,
        world,
        pods,
        faults,
    }
}

fn params(rng: &mut Rng, calm: bool, horizon_ms: u64) -> Params {
    let mut offerings = Vec::new();
    let zones: &[&str] = if rng.chance(50) { &["z1", "z2"] } else { &["z1"] };
    let tight = !calm && rng.chance(40);
    for (name, cpu, memory_gib, price) in [
        ("small", 2, 4, 10_000),
        ("medium", 4, 8, 20_000),
        ("large", 8, 16, 40_000),
    ] {
        for zone in zones {
            for spot in [true, false] {
                let capacity = (tight && rng.chance(60)).then(|| rng.small(0, 3));
                offerings.push(OfferingPlan {
                    instance_type: name.into(),
                    zone: (*zone).into(),
                    spot,
                    cpu,
                    memory_gib,
                    price: if spot { price / 3 } else { price },
                    capacity,
                });
            }
        }
    }
    // Something big is always to be had in the end.
    if let Some(last) = offerings.last_mut() {
        last.capacity = None;
    }
    Params {
        offerings,
        list_lag_ms: if calm { 0 } else { rng.pick(&[0, 0, 2_000, 10_000]) },
        boot_ms: rng.pick(&[500, 5_000, 20_000, 60_000]),
        agent_ms: rng.pick(&[100, 2_000, 10_000]),
        terminate_ms: rng.pick(&[0, 1_000, 20_000, 60_000]),
        cloud_ms: rng.pick(&[20, 200, 1_500]),
        api_ms: rng.pick(&[2, 20, 200]),
        throttle: (!calm && rng.chance(15)).then(|| Throttle {
            burst: rng.small(3, 12),
            every_ms: rng.pick(&[200, 500, 1_000]),
        }),
        horizon_ms,
    }
}

fn pod(rng: &mut Rng, n: u32, horizon_ms: u64, calm: bool) -> PodPlan {
    let create_ms = if rng.chance(50) {
        rng.between(0, 3_000)
    } else {
        rng.between(0, horizon_ms * 2 / 3)
    };
    let restart = rng.pick(&[
        Restart::Always,
        Restart::Always,
        Restart::OnFailure,
        Restart::Never,
    ]);
    let is_job = restart != Restart::Always && rng.chance(75);
    let exit_code = if restart == Restart::Never {
        rng.pick(&[0, 0, 1, 137])
    } else {
        0
    };
    let work = Work {
        starts_ms: rng.pick(&[100, 1_000, 8_000]),
        runs_ms: is_job.then(|| rng.pick(&[500, 20_000, 120_000])),
        exit_code,
        stops_ms: rng.pick(&[50, 2_000, 45_000]),
        waits_as: (!calm && rng.chance(5)).then(|| "ImagePullBackOff".to_owned()),
    };
    let end = create_ms + rng.pick(&[0, 300, 3_000, 30_000, 120_000, 400_000]) + rng.between(0, 2_000);
    let delete = rng.chance(55).then(|| (end, rng.pick(&[0, 1, 30, 30])));
    let force_ms = (!calm && rng.chance(10)).then(|| end + rng.between(0, 60_000));
    PodPlan {
        name: format!("p{n}"),
        create_ms,
        cpu: if !calm && rng.chance(3) {
            NEVER_FITS
        } else {
            rng.pick(&[1, 1, 3, 6])
        },
        memory_gib: 1,
        spot: rng.chance(50),
        restart,
        active_deadline_s: rng.chance(10).then(|| rng.between(20, 200)),
        work,
        delete,
        force_ms,
    }
}

fn draw_faults(rng: &mut Rng, world: &Params, pods: u32, faults: &mut Vec<Fault>) {
    let horizon = world.horizon_ms;
    // Some stories are about one thing, others about everything at once.
    let weight = rng.pick(&[1, 2, 4]);
    for _ in 0..rng.small(0, 4 * weight) {
        faults.push(call(rng, world, pods));
    }
    if rng.chance(30) {
        for _ in 0..rng.small(1, 3) {
            let part = rng.pick(&[Part::Cloud, Part::Store, Part::Pods, Part::Hosts]);
            faults.push(Fault::Outage {
                part,
                at_ms: moment(rng, horizon),
                for_ms: rng.pick(&[1_000, 15_000, 70_000, 200_000]),
            });
        }
    }
    if rng.chance(50) {
        for _ in 0..rng.small(1, 6) {
            faults.push(Fault::Dry {
                offering: usize::try_from(rng.next() % world.offerings.len() as u64).unwrap_or(0),
                at_ms: if rng.chance(50) { 0 } else { moment(rng, horizon) },
                for_ms: rng.pick(&[5_000, 60_000, 400_000]),
            });
        }
    }
    for _ in 0..rng.small(0, 2 * weight) {
        faults.push(Fault::Instance {
            nth: rng.small(1, pods + 2),
            after_ms: rng.pick(&[0, 200, 3_000, 30_000, 90_000, 240_000]) + rng.between(0, 3_000),
            harm: harm(rng),
        });
    }
    controllers(rng, horizon, faults);
    if rng.chance(10) {
        let kind = rng.pick(&[
            Foreign::Untagged,
            Foreign::OtherNode,
            Foreign::OtherCluster,
            Foreign::Forged,
        ]);
        faults.push(Fault::Plant {
            at_ms: moment(rng, horizon),
            kind,
        });
    }
}

fn controllers(rng: &mut Rng, horizon: u64, faults: &mut Vec<Fault>) {
    if rng.chance(45) {
        for _ in 0..rng.small(1, 4) {
            faults.push(Fault::Crash {
                at_ms: moment(rng, horizon),
                moments: rng.small(0, 60),
                down_ms: rng.pick(&[0, 1_000, 10_000, 60_000, 180_000]),
            });
        }
    }
    if rng.chance(10) {
        faults.push(Fault::Shutdown {
            at_ms: moment(rng, horizon),
            down_ms: rng.pick(&[0, 5_000, 60_000]),
        });
    }
    if rng.chance(25) {
        for _ in 0..rng.small(1, 2) {
            faults.push(Fault::SplitBrain {
                at_ms: moment(rng, horizon),
                cut_ms: rng.pick(&[0, 500, 5_000, 40_000]),
                overlap_ms: rng.pick(&[1_000, 10_000, 60_000, 200_000]),
            });
        }
    }
    if rng.chance(10) {
        let by = rng.pick(&[2_000, 60_000, 3_600_000]);
        faults.push(Fault::ClockJump {
            at_ms: moment(rng, horizon),
            by_ms: if rng.chance(50) { by } else { -by },
        });
    }
}

/// Mostly early, when most is going on.
fn moment(rng: &mut Rng, horizon: u64) -> u64 {
    if rng.chance(60) {
        rng.between(0, horizon.min(120_000))
    } else {
        rng.between(0, horizon)
    }
}

fn harm(rng: &mut Rng) -> Harm {
    match rng.small(0, 7) {
        0 | 1 => Harm::Die {
            shown_ms: rng.pick(&[0, 0, 30_000, 600_000]),
        },
        2 | 3 => Harm::Interrupt {
            notice_ms: rng.pick(&[0, 30_000, 120_000]),
        },
        4 => Harm::Silent {
            for_ms: rng.pick(&[Some(3_000), Some(50_000), Some(400_000), None]),
        },
        5 => Harm::LosePod,
        6 => Harm::StuckPending,
        _ => Harm::SlowBoot {
            ms: rng.pick(&[30_000, 200_000, 290_000, 600_000]),
        },
    }
}

fn call(rng: &mut Rng, world: &Params, pods: u32) -> Fault {
    let op = rng.pick(&[
        Op::Launch,
        Op::Launch,
        Op::Launch,
        Op::Terminate,
        Op::Get,
        Op::List,
        Op::Offerings,
        Op::Create,
        Op::Create,
        Op::Update,
        Op::Update,
        Op::Remove,
        Op::Read,
        Op::Manifest,
        Op::Publish,
        Op::Release,
        Op::Exists,
        Op::Watch,
        Op::Deploy,
        Op::Deploy,
        Op::Stop,
    ]);
    let often = match op {
        Op::Launch | Op::Create | Op::Deploy | Op::Manifest | Op::Remove => pods + 3,
        Op::Update | Op::Publish | Op::Watch | Op::Get => pods * 4,
        Op::Terminate | Op::Read => pods * 2,
        Op::List | Op::Stop | Op::Release | Op::Exists | Op::Refresh | Op::Tell => pods,
        Op::Offerings | Op::ListPods | Op::WatchPods => 3,
    };
    Fault::Call {
        op,
        nth: rng.small(1, often.max(1)),
        how: how(rng, op, world),
    }
}

fn how(rng: &mut Rng, op: Op, world: &Params) -> How {
    let lost =
        |rng: &mut Rng| How::LostReply(rng.pick(&[Kind::Timeout, Kind::Unavailable, Kind::Unexpected]));
    let fail = |rng: &mut Rng, kinds: &[Kind]| How::Fail(rng.pick(kinds));
    let slow = |rng: &mut Rng| {
        let ms = rng.pick(&[2_000, 20_000, 58_000]);
        if rng.chance(50) {
            How::SlowReply(ms)
        } else {
            How::Slow(ms)
        }
    };
    match op {
        Op::Launch => match rng.small(0, 5) {
            0 | 1 => lost(rng),
            2 if world.list_lag_ms > 0 => How::Late(rng.between(1, world.list_lag_ms)),
            3 if rng.chance(50) => How::SlowReply(rng.pick(&[5_000, 90_000, 400_000])),
            3 => How::Slow(rng.pick(&[5_000, 90_000, 400_000])),
            _ => fail(
                rng,
                &[
                    Kind::Unavailable,
                    Kind::Timeout,
                    Kind::RateLimited,
                    Kind::Quota,
                    Kind::Denied,
                    Kind::Unexpected,
                ],
            ),
        },
        Op::List | Op::Get => match rng.small(0, 3) {
            0 => How::Stale,
            1 => slow(rng),
            2 => How::Hang,
            _ => fail(
                rng,
                &[Kind::Unavailable, Kind::Timeout, Kind::RateLimited, Kind::Denied],
            ),
        },
        Op::Create | Op::Update | Op::Remove => match rng.small(0, 4) {
            0 | 1 => lost(rng),
            2 => slow(rng),
            3 => fail(rng, &[Kind::Conflict, Kind::Unavailable]),
            _ => fail(
                rng,
                &[Kind::Unavailable, Kind::Timeout, Kind::RateLimited, Kind::Denied],
            ),
        },
        Op::Terminate | Op::Deploy | Op::Stop | Op::Release | Op::Publish => match rng.small(0, 3) {
            0 => lost(rng),
            1 => slow(rng),
            2 => How::Hang,
            _ => fail(
                rng,
                &[Kind::Unavailable, Kind::Timeout, Kind::RateLimited, Kind::Denied],
            ),
        },
        Op::Read if rng.chance(40) => How::Stale,
        Op::Offerings
        | Op::Read
        | Op::Manifest
        | Op::Exists
        | Op::Watch
        | Op::Refresh
        | Op::ListPods
        | Op::WatchPods
        | Op::Tell => match rng.small(0, 2) {
            0 => slow(rng),
            1 => How::Hang,
            _ => fail(
                rng,
                &[Kind::Unavailable, Kind::Timeout, Kind::RateLimited, Kind::Denied],
            ),
        },
    }
}
