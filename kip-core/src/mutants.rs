//! Deliberate defects, to prove that the simulator finds them. Compiled only with `--cfg kip_mutants`, which nothing but
//! `cargo xtask sim --mutants` sets: no build that is used contains this.

use std::sync::atomic::{AtomicU8, Ordering};

use jiff::Timestamp;

use crate::ids::LaunchToken;
use crate::provider::{LaunchRequest, tags};

macro_rules! mutants {
    ($($(#[doc = $text:literal])+ $name:ident),+ $(,)?) => {
        /// A deliberate defect.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Mutant {
            $($(#[doc = $text])+ $name),+
        }

        /// All of them, each with what it does.
        pub const ALL: &[(Mutant, &str)] = &[$((Mutant::$name, concat!($($text),+))),+];
    };
}

mutants! {
    /// Acts without storing the record first.
    SkipPersist,
    /// Launches with a token that is not the record's.
    RandomToken,
    /// Does not store the launch token as a tag.
    UntaggedToken,
    /// Forgets the instance when its terminate was accepted.
    ForgetOnAccepted,
    /// Overwrites what another controller stored.
    OverwriteOnConflict,
    /// Takes the first `NotFound` for the instance's end.
    FirstNotFound,
    /// Takes a workload's failure for the infrastructure's.
    BlameInfrastructure,
    /// Tells the replacement to run the pod before the old instance has ended it.
    DeployTooEarly,
    /// Counts attempts from 1 again.
    AttemptRestarts,
    /// Launches with changed parameters under the old token.
    SameTokenOtherParameters,
    /// Ends what has no pod before the source has told all pods.
    ActBeforeSync,
    /// Waits for a booting instance for ever.
    NoBootDeadline,
    /// Never looks for what is left over.
    NoSweep,
    /// Believes the first sweep, and asks nobody else before it acts.
    OneSweep,
    /// Terminates what it cannot prove to be ours.
    SweepForeign,
    /// Removes a record whose instance still exists.
    ForgetFinalizer,
    /// Forgets what became of a pod when its controller restarts.
    ForgetVerdict,
    /// Gives an instance up whose agent is silent.
    LoseTheSilent,
    /// Does not say why a pod waits.
    WaitInSilence,
}

static CHOSEN: AtomicU8 = AtomicU8::new(u8::MAX);

/// Lets this whole process have a defect, or none.
pub fn choose(mutant: Option<Mutant>) {
    CHOSEN.store(mutant.map_or(u8::MAX, |mutant| mutant as u8), Ordering::SeqCst);
}

/// Whether this process has the defect.
pub(crate) fn is(mutant: Mutant) -> bool {
    CHOSEN.load(Ordering::SeqCst) == mutant as u8
}

/// A launch as a defect spoils it.
pub(crate) fn disturb(mut request: LaunchRequest, now: Timestamp) -> LaunchRequest {
    if is(Mutant::UntaggedToken) {
        request.tags.remove(tags::TOKEN);
    }
    if is(Mutant::RandomToken) {
        request.token = LaunchToken::from_stored(format!("{:040x}", now.as_millisecond()));
    }
    request
}
