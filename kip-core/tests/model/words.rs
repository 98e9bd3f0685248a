//! The model's small words for what controllers do and hear: short enough to be hashed a million times.

/// One attempt's cell: what its token, its instance and its agent's address are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) attempt: u8,
    pub(crate) offering: u8,
}

/// A record, by its place in the [`Mind`](crate::mind::Mind).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RecordId(pub(crate) u32);

/// A machine's state, by its place in the [`Mind`](crate::mind::Mind).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StateId(pub(crate) u32);

/// An action of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Do {
    Save(RecordId),
    Remove,
    Place,
    Launch(Key),
    Find(Key),
    Observe(Key),
    Terminate(Key),
    Connect(Key),
    Disconnect(u8),
    Deploy(Key),
    Stop(Key),
    Publish,
    Release,
    Forget,
}

/// What an agent says of its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Agent {
    /// Was told nothing.
    Idle,
    /// Was told to stop what it was never told to run, so it will not run it.
    Refuses,
    Runs,
    Stopping,
    Ended {
        /// Because it was told to stop.
        stopped: bool,
    },
}

impl Agent {
    /// Whether the pod's containers may be running.
    pub(crate) fn is_running(self) -> bool {
        matches!(self, Self::Runs | Self::Stopping)
    }
}

/// An instance as the cloud shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct View {
    pub(crate) key: Key,
    pub(crate) life: Life,
}

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Life {
    /// It has no address yet.
    Boots,
    Up,
    /// A terminate was accepted; what runs on it still runs.
    Dying,
    Gone,
}

/// How a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Failed {
    NotFound,
    Timeout,
    NoCapacity,
    /// The agent will not have the pod.
    Refused,
}

/// Something a machine hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum News {
    Woke,
    Run {
        started_before: bool,
    },
    Deleted,
    Gone,
    Placed(u8),
    Launched(Key, Result<View, Failed>),
    Found(Key, Option<View>),
    Observed(Key, Result<View, Failed>),
    Terminated(Key, Result<(), Failed>),
    Reported(Key, Agent),
    Disconnected(Key),
    Deployed(Key, Result<(), Failed>),
    Stopped(Key, Result<(), Failed>),
    Interrupted(Key),
    /// Whether the newest report is meant.
    Published {
        is_newest: bool,
    },
    Released,
}
