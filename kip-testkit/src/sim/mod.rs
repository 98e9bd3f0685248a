//! Stories in which everything goes wrong, told by the real driver in virtual time, and judged at every effect.
//!
//! A [`Scenario`] is one story as plain data: what the cloud sells and how long things take, the pods with their timelines, and a
//! list of faults. [`from_seed`] draws one; [`run()`] plays it and is a pure function of it: the driver, its machine and its planner are
//! the real ones, everything around them is simulated on a paused clock, and nothing in between reads real time or chance. What
//! is broken is found by the judge, which sees the world as it truly is, whoever knows of it. [`minimise()`] takes a broken story apart until
//! only what matters is left, and [`story()`] tells it in plain words.

mod api;
mod cloud;
mod draw;
mod fleet;
mod host;
mod judge;
mod minimise;
#[cfg(kip_mutants)]
mod mutants;
mod pods;
mod port;
mod provider;
mod rng;
mod run;
mod runtime;
mod scenario;
mod store;
mod story;
mod world;

pub use draw::scenario as from_seed;
pub use fleet::{Failure, Fleet, fleet};
pub use judge::Violation;
pub use minimise::minimise;
#[cfg(kip_mutants)]
pub use mutants::{Hunt, hunt};
pub use run::{Outcome, run};
pub use scenario::{
    Fault, Foreign, Harm, How, Kind, OfferingPlan, Op, Params, Part, PodPlan, Restart, Scenario, Side,
    Throttle, WatchHarm, Work,
};
pub use story::story;
