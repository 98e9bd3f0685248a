//! What the model's state is made of.

use crate::words::{Agent, Do, Key, Life, News, RecordId, StateId, View};

/// The whole system, for one pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct System {
    pub(crate) controllers: [Option<Controller>; 2],
    /// The one record, if there is one.
    pub(crate) record: Option<RecordId>,
    pub(crate) pod: PodObject,
    /// By key; those that are gone are kept, or nobody could tell what happened on them.
    pub(crate) cloud: Vec<Instance>,
    /// Calls under way, in order, so that equal sets are equal.
    pub(crate) calls: Vec<Call>,
    pub(crate) left: Budget,
    /// Launches whose intent was stored at some time.
    pub(crate) intents: Vec<Key>,
    /// A rule that was broken by the last transition, for the properties that no state shows.
    pub(crate) broken: Option<Broken>,
}

/// One controller process, alive. Whatever it does not have here it forgets when it dies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Controller {
    /// The pod's machine, unless the pod is unknown or forgotten.
    pub(crate) state: Option<StateId>,
    /// The state before the step that is being carried out, as long as that step has had no effect.
    pub(crate) before: Option<StateId>,
    /// Whether the machine asked to be woken.
    pub(crate) wakes: bool,
    /// The record as it was stored last, as far as this controller knows.
    pub(crate) stored: Option<RecordId>,
    /// Whether its version is still the newest.
    pub(crate) is_current: bool,
    /// What is left to do of the last step.
    pub(crate) todo: Vec<Do>,
    /// What the machine hears next, before anything else.
    pub(crate) inbox: Vec<News>,
    /// What this process was told by the source.
    pub(crate) told: Told,
    /// The agents it follows.
    pub(crate) follows: Vec<Key>,
}

/// What the source told a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Told {
    Nothing,
    Run,
    Deleted,
    Gone,
}

/// The pod in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PodObject {
    pub(crate) wish: Wish,
    /// Its status says that it has started.
    pub(crate) has_started: bool,
    /// Its status says that it has ended.
    pub(crate) has_ended: bool,
    /// And said so before anybody deleted it.
    pub(crate) ended_by_itself: bool,
}

impl PodObject {
    /// Whether its record is still needed: `PodSource::exists`. A pod that is being deleted has to be released, ended or not.
    pub(crate) fn exists(self) -> bool {
        match self.wish {
            Wish::Run => !self.has_ended,
            Wish::Deleted => true,
            Wish::Gone => false,
        }
    }
}

/// What its user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wish {
    Run,
    Deleted,
    Gone,
}

/// One instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Instance {
    pub(crate) key: Key,
    pub(crate) life: Life,
    pub(crate) agent: Agent,
    /// Not listed yet.
    pub(crate) is_hidden: bool,
    /// Launched less than an hour ago.
    pub(crate) is_young: bool,
    /// The cloud takes it back within the hour.
    pub(crate) is_doomed: bool,
}

impl Instance {
    pub(crate) fn is_alive(&self) -> bool {
        self.life != Life::Gone
    }

    pub(crate) fn view(&self) -> View {
        View {
            key: self.key,
            life: self.life,
        }
    }

    /// Whether its agent can be reached.
    pub(crate) fn is_reachable(&self) -> bool {
        matches!(self.life, Life::Up | Life::Dying)
    }
}

/// A call under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Call {
    /// Who made it; None when it died since.
    pub(crate) owner: Option<u8>,
    pub(crate) what: Progress,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Progress {
    /// Sent, and had no effect yet.
    Sent(What),
    /// Had its effect or not; the reply is on its way.
    Replied(News),
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum What {
    Place,
    Launch(Key),
    Find(Key),
    Observe(Key),
    Terminate(Key),
    /// A terminate by a sweep: nobody waits for its answer.
    Collect(Key),
    Deploy(Key),
    Stop(Key),
    Publish,
    Release,
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Controllers that die.
    pub(crate) crashes: u8,
    /// Controllers that start, the first included.
    pub(crate) starts: u8,
    /// Calls that fail, or whose reply is lost.
    pub(crate) faults: u8,
    /// Saves whose reply is lost.
    pub(crate) lost_saves: u8,
    /// Instances that die.
    pub(crate) deaths: u8,
    /// Instances that the cloud takes back.
    pub(crate) interruptions: u8,
    /// Connections that break.
    pub(crate) cuts: u8,
    /// Launches that are not listed at once.
    pub(crate) lags: u8,
    /// Hours that pass.
    pub(crate) hours: u8,
    /// Sweeps.
    pub(crate) sweeps: u8,
    /// Pods that end by themselves.
    pub(crate) ends: u8,
    /// Records removed by hand.
    pub(crate) hands: u8,
}

/// A rule that a transition broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Broken {
    LaunchedWithoutIntent,
    RemovedWhileAlive,
    RanAgainAfterItsEnd,
    Undone,
}

/// One transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Start(u8),
    Crash(u8),
    /// The source tells a controller what it wants now.
    Tell(u8),
    /// A controller does what is next on its list.
    Next(u8),
    /// A controller stores what is next on its list, and does not hear that it did.
    SaveUnheard(u8),
    Wake(u8),
    Carry(Call, How),
    Deliver(Call),
    Report(u8, Key),
    Cut(u8, Key),
    /// The cloud gives notice for an instance; this controller hears of it, or none.
    Interrupt(Key, Option<u8>),
    Boots(Key),
    Dies(Key),
    /// A terminate is done.
    Vanishes(Key),
    AgentStops(Key),
    PodEnds(Key),
    Delete,
    ForceDelete,
    RemoveRecord,
    Hour,
    Sweep(u8),
}

/// How a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Done,
    /// Done, and the instance is not listed for a while.
    DoneHidden,
    /// Done with the other offering.
    Other,
    DoneUnheard,
    NotDone,
    NoCapacity,
}
