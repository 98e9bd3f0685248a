//! One story, whole: the world, the pods with their timelines, and everything that goes wrong. A run is a pure function of it.

use serde::{Deserialize, Serialize};

/// One story. Times are milliseconds of virtual time from its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it was drawn from; also decides latencies.
    pub seed: u64,
    /// Why it is kept, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// What stands in for Kubernetes.
    pub side: Side,
    /// The cloud and how long things take.
    pub world: Params,
    /// The pods.
    pub pods: Vec<PodPlan>,
    /// Everything that goes wrong.
    pub faults: Vec<Fault>,
}

/// What stands in for Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// Pods and records behind the driver's own traits.
    Traits,
    /// A simulated API server under the real watcher, pod source and cell store.
    Api,
}

/// The cloud and how long things take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Params {
    /// What is sold.
    pub offerings: Vec<OfferingPlan>,
    /// How long `list` and `get` may lag a launch.
    pub list_lag_ms: u64,
    /// From launch to running with an address.
    pub boot_ms: u64,
    /// From running to an agent that answers.
    pub agent_ms: u64,
    /// From an accepted terminate to gone.
    pub terminate_ms: u64,
    /// An ordinary call to the cloud takes up to so long.
    pub cloud_ms: u64,
    /// An ordinary call to the API or to an agent takes up to so long.
    pub api_ms: u64,
    /// How many calls the cloud takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Throttle>,
    /// When faults stop.
    pub horizon_ms: u64,
}

/// A bucket of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Throttle {
    /// Calls in a full bucket.
    pub burst: u32,
    /// One more after so long.
    pub every_ms: u64,
}

/// Something the cloud sells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OfferingPlan {
    /// The instance type.
    pub instance_type: String,
    /// The zone.
    pub zone: String,
    /// Whether it is spot capacity.
    pub spot: bool,
    /// CPUs.
    pub cpu: u32,
    /// Memory.
    pub memory_gib: u64,
    /// Price.
    pub price: u64,
    /// How many there are at a time; None is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
}

/// When an ended pod runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    /// Restart policy `Always`.
    Always,
    /// Restart policy `OnFailure`.
    OnFailure,
    /// Restart policy `Never`.
    Never,
}

/// One pod and what becomes of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodPlan {
    /// Its name.
    pub name: String,
    /// When it is created.
    pub create_ms: u64,
    /// CPUs it asks for.
    pub cpu: u32,
    /// Memory it asks for.
    pub memory_gib: u64,
    /// Whether it takes spot capacity.
    pub spot: bool,
    /// Its restart policy.
    pub restart: Restart,
    /// Its active deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_deadline_s: Option<u64>,
    /// What its container does.
    pub work: Work,
    /// When it is deleted, and with how many seconds of grace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<(u64, u32)>,
    /// When its object is removed by force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_ms: Option<u64>,
}

impl PodPlan {
    /// Whether nothing that is sold can hold it.
    pub fn never_fits(&self) -> bool {
        self.cpu >= NEVER_FITS
    }
}

/// So many CPUs nobody sells.
pub(super) const NEVER_FITS: u32 = 900;

/// What a pod's container does on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Work {
    /// From deploy to running.
    pub starts_ms: u64,
    /// How long it runs; None is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs_ms: Option<u64>,
    /// What it ends with by itself.
    pub exit_code: i32,
    /// How long it takes to end when asked to.
    pub stops_ms: u64,
    /// It never starts, and waits with this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_as: Option<String>,
}

/// A call of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Op {
    /// Cloud: launch.
    Launch,
    /// Cloud: terminate.
    Terminate,
    /// Cloud: get.
    Get,
    /// Cloud: list.
    List,
    /// Cloud: offerings.
    Offerings,
    /// Record store: create.
    Create,
    /// Record store: update.
    Update,
    /// Record store: remove.
    Remove,
    /// Record store: read one or all.
    Read,
    /// Pods: manifest.
    Manifest,
    /// Pods: publish.
    Publish,
    /// Pods: release.
    Release,
    /// Pods: a live look.
    Exists,
    /// Host: watch.
    Watch,
    /// Host: deploy.
    Deploy,
    /// Host: update.
    Refresh,
    /// Host: stop.
    Stop,
    /// API: list pods.
    ListPods,
    /// API: watch pods.
    WatchPods,
    /// API: write an event.
    Tell,
}

impl Op {
    /// Whom it is addressed to.
    pub(super) fn part(self) -> Part {
        match self {
            Self::Launch | Self::Terminate | Self::Get | Self::List | Self::Offerings => Part::Cloud,
            Self::Create | Self::Update | Self::Remove | Self::Read => Part::Store,
            Self::Manifest
            | Self::Publish
            | Self::Release
            | Self::Exists
            | Self::ListPods
            | Self::WatchPods
            | Self::Tell => Part::Pods,
            Self::Watch | Self::Deploy | Self::Refresh | Self::Stop => Part::Hosts,
        }
    }
}

/// Somebody the controller speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// The cloud.
    Cloud,
    /// Where records are kept.
    Store,
    /// Where pods are.
    Pods,
    /// The agents.
    Hosts,
}

/// An error a peer may give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Cannot be reached.
    Unavailable,
    /// No answer in time.
    Timeout,
    /// Too many requests.
    RateLimited,
    /// Somebody else was first.
    Conflict,
    /// An account limit.
    Quota,
    /// The peer refuses who we are.
    Denied,
    /// The peer breaks its contract.
    Unexpected,
}

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum How {
    /// Fails without effect.
    Fail(Kind),
    /// Takes effect, then fails all the same.
    LostReply(Kind),
    /// Fails, and takes effect so many milliseconds later.
    Late(u64),
    /// Takes so long.
    Slow(u64),
    /// Takes effect or reads at once, and is answered so many milliseconds later.
    SlowReply(u64),
    /// Takes effect and is never answered.
    Hang,
    /// Answers with what was true some time ago.
    Stale,
}

/// What happens to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Harm {
    /// It is gone; the cloud shows it as terminated for so long.
    Die {
        /// Milliseconds.
        shown_ms: u64,
    },
    /// The cloud gives notice and takes it so much later.
    Interrupt {
        /// Milliseconds.
        notice_ms: u64,
    },
    /// Its agent cannot be reached for so long; None is until faults stop.
    Silent {
        /// Milliseconds.
        for_ms: Option<u64>,
    },
    /// Its agent forgets the pod, as after a reboot with an empty disk.
    LosePod,
    /// It never gets beyond pending.
    StuckPending,
    /// It boots so much later.
    SlowBoot {
        /// Milliseconds.
        ms: u64,
    },
}

/// An instance that nobody here launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Foreign {
    /// Without any of our tags.
    Untagged,
    /// Of the same cluster, another node.
    OtherNode,
    /// Of another cluster, with a node of the same name.
    OtherCluster,
    /// With our tags, and a token that is none of ours.
    Forged,
}

/// What happens to a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WatchHarm {
    /// It ends.
    Break,
    /// It is told that it is too old: 410.
    Gone,
    /// From then on everything comes so much later.
    Lag {
        /// Milliseconds.
        ms: u64,
    },
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// One call meets it.
    Call {
        /// Which operation.
        op: Op,
        /// The how manieth call of it, from 1.
        nth: u32,
        /// What happens.
        how: How,
    },
    /// A watch of pods goes wrong. Only where there is an API.
    Watch {
        /// The how manieth watch, from 1.
        nth: u32,
        /// How long after its start.
        after_ms: u64,
        /// What.
        harm: WatchHarm,
    },
    /// A peer cannot be reached for a while.
    Outage {
        /// Which.
        part: Part,
        /// From when.
        at_ms: u64,
        /// For how long.
        for_ms: u64,
    },
    /// An offering has no capacity for a while.
    Dry {
        /// Which, from 0.
        offering: usize,
        /// From when.
        at_ms: u64,
        /// For how long.
        for_ms: u64,
    },
    /// Something happens to an instance.
    Instance {
        /// The how manieth instance, from 1.
        nth: u32,
        /// How long after its launch.
        after_ms: u64,
        /// What.
        harm: Harm,
    },
    /// The controller crashes.
    Crash {
        /// Not before.
        at_ms: u64,
        /// Then after so many more moments just before or after a call.
        moments: u32,
        /// For how long it is away.
        down_ms: u64,
    },
    /// The controller is shut down in order.
    Shutdown {
        /// When.
        at_ms: u64,
        /// For how long it is away.
        down_ms: u64,
    },
    /// The controller is cut off, another takes over, and the old one wakes up.
    SplitBrain {
        /// When it is cut off.
        at_ms: u64,
        /// For how long.
        cut_ms: u64,
        /// For how long both then act.
        overlap_ms: u64,
    },
    /// The clock of the controller jumps.
    ClockJump {
        /// When.
        at_ms: u64,
        /// By how much, negative is back.
        by_ms: i64,
    },
    /// An instance appears that nobody here launched.
    Plant {
        /// When.
        at_ms: u64,
        /// Which kind.
        kind: Foreign,
    },
}
