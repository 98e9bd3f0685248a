//! The one suite every [`CloudProvider`] has to pass, driven by what the provider says it can do.
//!
//! ```no_run
//! # async fn example(provider: std::sync::Arc<dyn kip_core::provider::CloudProvider>) {
//! use kip_testkit::conformance;
//! let report = conformance::run(provider, conformance::Options::default()).await;
//! assert!(report.is_success(), "{report}");
//! # }
//! ```
//!
//! Every instance it launches carries a tag of its own run and is terminated at the end, also after a failure. It costs some ten
//! launches of the cheapest offering.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, future};
use kip_core::ids::{ClusterUid, InstanceId, InstanceType, LaunchToken, NodeName, OfferingId, PodUid, Zone};
use kip_core::model::{CapacityType, Instance, InstancePhase, Offering};
use kip_core::provider::{CloudProvider, LaunchRequest, ListOptions, OfferingQuery, UserData, tags};
use kip_core::{ErrorKind, Result as KipResult};

/// How the suite is run.
pub struct Options {
    /// How long an instance may take to run, and to be gone. Default 5 minutes.
    pub patience: Duration,
    /// Between looks at the cloud. Default 250 ms.
    pub interval: Duration,
    /// What instances are booted from. Default empty.
    pub user_data: Box<dyn Fn(&LaunchToken) -> UserData + Send + Sync>,
    /// Tells this run's instances from others'. Default a fixed name: give another when runs share an account.
    pub run: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(300),
            interval: Duration::from_millis(250),
            user_data: Box::new(|_| UserData::new(Vec::new())),
            run: "conformance".into(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("patience", &self.patience)
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

/// What one case came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not; why.
    Failed(String),
    /// It does not apply to this provider; why.
    Skipped(&'static str),
}

/// What the cases came to, in order.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By name.
    pub cases: Vec<(&'static str, Outcome)>,
}

impl Report {
    /// Whether nothing failed.
    pub fn is_success(&self) -> bool {
        !self
            .cases
            .iter()
            .any(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome) in &self.cases {
            match outcome {
                Outcome::Passed => writeln!(f, "ok      {name}")?,
                Outcome::Failed(why) => writeln!(f, "FAILED  {name}: {why}")?,
                Outcome::Skipped(why) => writeln!(f, "skipped {name}: {why}")?,
            }
        }
        Ok(())
    }
}

/// Runs the whole suite.
pub async fn run(provider: Arc<dyn CloudProvider>, options: Options) -> Report {
    let suite = Suite { provider, options };
    let mut report = Report::default();
    let offerings = suite.provider.offerings(&OfferingQuery::default()).await;
    let cheapest = offerings
        .as_ref()
        .ok()
        .and_then(|offerings| offerings.iter().min_by_key(|offering| offering.price).cloned());
    report.cases.push((
        "offerings are sold as announced",
        outcome(suite.offerings(offerings)),
    ));
    let Some(offering) = cheapest else {
        return report;
    };
    let mut case = |name, result| report.cases.push((name, outcome(result)));
    case("an unknown instance is NotFound", suite.unknown_instance().await);
    case("an unknown offering is refused", suite.unknown_offering().await);
    case(
        "the same token launches once",
        suite.same_token(&offering.id).await,
    );
    case(
        "the same token at the same time launches once",
        suite.same_token_at_once(&offering.id).await,
    );
    case(
        "a token with other parameters is refused",
        suite.other_parameters(&offering.id).await,
    );
    case(
        "tags are there from birth",
        suite.tags_from_birth(&offering.id).await,
    );
    case(
        "list shows what matches and nothing else",
        suite.list_filters(&offering.id).await,
    );
    case(
        "an instance runs and has an address",
        suite.runs(&offering.id).await,
    );
    case(
        "terminate is repeated until NotFound",
        suite.terminates(&offering.id).await,
    );
    let notices = if suite.provider.info().capabilities.interruption_notices {
        outcome(suite.notices())
    } else {
        Outcome::Skipped("the provider gives no notices")
    };
    report
        .cases
        .push(("a provider that announces notices has a feed", notices));
    report
        .cases
        .push(("nothing is left", outcome(suite.clean_up().await)));
    report
}

type Case = Result<(), String>;

fn outcome(result: Case) -> Outcome {
    match result {
        Ok(()) => Outcome::Passed,
        Err(why) => Outcome::Failed(why),
    }
}

fn check(holds: bool, why: impl FnOnce() -> String) -> Case {
    if holds { Ok(()) } else { Err(why()) }
}

fn text(error: kip_core::Error) -> String {
    format!("{error:?}")
}

/// The tag of this suite's instances.
const RUN_TAG: &str = "kip.elotl.co/conformance-run";

struct Suite {
    provider: Arc<dyn CloudProvider>,
    options: Options,
}

impl Suite {
    fn request(&self, case: &str, offering: &OfferingId) -> LaunchRequest {
        let cluster = ClusterUid::new(format!("conformance-{}", self.options.run));
        let (node, pod) = (NodeName::new("conformance"), PodUid::new(case));
        let token = LaunchToken::derive(&cluster, &node, &pod, 1, offering);
        let user_data = (self.options.user_data)(&token);
        let cell = token.host_name();
        LaunchRequest::new(token.clone(), offering.clone(), user_data)
            .with_tag(tags::CLUSTER, cluster.as_str())
            .with_tag(tags::NODE, node.as_str())
            .with_tag(tags::POD_UID, pod.as_str())
            .with_tag(tags::POD, format!("conformance/{case}"))
            .with_tag(tags::CELL, cell.as_str())
            .with_tag(tags::TOKEN, token.as_str())
            .with_tag(RUN_TAG, &self.options.run)
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<Instance, String> {
        self.provider.launch(request.clone()).await.map_err(text)
    }

    /// Looks again until it holds.
    async fn until<T, F>(&self, what: &str, mut look: impl FnMut() -> F) -> Result<T, String>
    where
        F: Future<Output = Result<Option<T>, String>>,
    {
        let wait = async {
            loop {
                if let Some(found) = look().await? {
                    return Ok(found);
                }
                tokio::time::sleep(self.options.interval).await;
            }
        };
        let limit = self.options.patience;
        let waited = tokio::time::timeout(limit, wait).await;
        waited.unwrap_or_else(|_| Err(format!("{what}: not within {} s", limit.as_secs())))
    }

    async fn list(&self, options: ListOptions) -> Result<Vec<Instance>, String> {
        self.provider.list(options).try_collect().await.map_err(text)
    }

    async fn listed(&self, request: &LaunchRequest) -> Result<Vec<Instance>, String> {
        let mut options = ListOptions::default();
        options.tags = request.tags.clone();
        self.list(options).await
    }

    fn offerings(&self, offerings: KipResult<Vec<Offering>>) -> Case {
        let offerings = offerings.map_err(text)?;
        check(!offerings.is_empty(), || "there are none".into())?;
        let can = &self.provider.info().capabilities;
        for offering in &offerings {
            check(can.architectures.contains(&offering.architecture), || {
                format!("{} has an architecture that is not announced", offering.id)
            })?;
            check(can.capacity_types.contains(&offering.id.capacity_type), || {
                format!("{} has a capacity type that is not announced", offering.id)
            })?;
            check(offering.cpu.0 > 0 && offering.memory.0 > 0, || {
                format!("{} has no size", offering.id)
            })?;
        }
        let mut ids: Vec<&OfferingId> = offerings.iter().map(|offering| &offering.id).collect();
        ids.sort();
        ids.dedup();
        check(ids.len() == offerings.len(), || "some are there twice".into())
    }

    async fn unknown_instance(&self) -> Case {
        let id = InstanceId::new("i-0000000000000dead");
        let get = self.provider.get(&id).await.err().map(|error| error.kind());
        check(get == Some(ErrorKind::NotFound), || {
            format!("get answered {get:?}")
        })?;
        let terminate = self.provider.terminate(&id).await.err().map(|error| error.kind());
        check(terminate == Some(ErrorKind::NotFound), || {
            format!("terminate answered {terminate:?}")
        })
    }

    async fn unknown_offering(&self) -> Case {
        let offering = OfferingId {
            instance_type: InstanceType::new("no-such-type"),
            zone: Zone::new("no-such-zone"),
            capacity_type: CapacityType::OnDemand,
        };
        let launch = self
            .provider
            .launch(self.request("unknown-offering", &offering))
            .await;
        match launch {
            Err(error) if error.kind() == ErrorKind::InvalidRequest => Ok(()),
            other => Err(format!("answered {other:?} instead of InvalidRequest")),
        }
    }

    async fn same_token(&self, offering: &OfferingId) -> Case {
        let request = self.request("same-token", offering);
        let first = self.launch(&request).await?;
        let second = self.launch(&request).await?;
        check(first.id == second.id, || {
            format!("{} and {}", first.id, second.id)
        })?;
        check(first.offering == *offering, || {
            format!("launched {} instead", first.offering)
        })?;
        self.is_listed_once(&request, &first.id).await?;
        self.terminate(&first.id).await
    }

    async fn same_token_at_once(&self, offering: &OfferingId) -> Case {
        let request = self.request("same-token-at-once", offering);
        let calls = (0..4).map(|_| self.launch(&request));
        let launched = future::join_all(calls)
            .await
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        let first = &launched[0];
        check(launched.iter().all(|instance| instance.id == first.id), || {
            let ids: Vec<_> = launched.iter().map(|instance| instance.id.as_str()).collect();
            format!("launched {ids:?}")
        })?;
        self.is_listed_once(&request, &first.id).await?;
        self.terminate(&first.id).await
    }

    async fn is_listed_once(&self, request: &LaunchRequest, id: &InstanceId) -> Case {
        let listed = self
            .until("the instance is listed", || async {
                let listed = self.listed(request).await?;
                Ok((!listed.is_empty()).then_some(listed))
            })
            .await?;
        check(listed.len() == 1 && listed[0].id == *id, || {
            format!("listed {} instances", listed.len())
        })
    }

    async fn other_parameters(&self, offering: &OfferingId) -> Case {
        let request = self.request("other-parameters", offering);
        let first = self.launch(&request).await?;
        let mut other = request.clone();
        other.user_data = UserData::new(b"something else".to_vec());
        let answer = self.provider.launch(other).await;
        let kind = answer.as_ref().err().map(|error| error.kind());
        self.terminate(&first.id).await?;
        check(kind == Some(ErrorKind::AlreadyExists), || {
            format!("answered {answer:?} instead of AlreadyExists")
        })
    }

    async fn tags_from_birth(&self, offering: &OfferingId) -> Case {
        let request = self.request("tags", offering);
        let id = self.launch(&request).await?.id;
        let instance = self
            .until("get shows the instance", || async {
                match self.provider.get(&id).await {
                    Ok(instance) => Ok(Some(instance)),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(text(error)),
                }
            })
            .await?;
        for (key, value) in &request.tags {
            let found = instance.tags.get(key);
            check(found == Some(value), || {
                format!("tag {key} is {found:?} instead of {value:?}")
            })?;
        }
        check(instance.token.as_ref() == Some(&request.token), || {
            format!("the token is {:?}", instance.token)
        })?;
        self.terminate(&id).await
    }

    async fn list_filters(&self, offering: &OfferingId) -> Case {
        let request = self.request("list", offering);
        let id = self.launch(&request).await?.id;
        self.is_listed_once(&request, &id).await?;
        let elsewhere = ListOptions::default()
            .with_tag(RUN_TAG, &self.options.run)
            .with_tag(tags::NODE, "another-node");
        let listed = self.list(elsewhere).await?;
        check(listed.is_empty(), || {
            format!("{} instances of another node are listed", listed.len())
        })?;
        self.terminate(&id).await
    }

    async fn runs(&self, offering: &OfferingId) -> Case {
        let id = self.launch(&self.request("runs", offering)).await?.id;
        self.until("it runs and has a management address", || async {
            match self.provider.get(&id).await {
                Ok(instance) if instance.phase == InstancePhase::Terminated => {
                    Err(format!("it ended: {:?}", instance.reason))
                }
                Ok(instance) => Ok((instance.phase == InstancePhase::Running
                    && instance.addresses.management.is_some())
                .then_some(())),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(text(error)),
            }
        })
        .await?;
        self.terminate(&id).await
    }

    async fn terminates(&self, offering: &OfferingId) -> Case {
        let request = self.request("terminates", offering);
        let id = self.launch(&request).await?.id;
        self.provider.terminate(&id).await.map_err(text)?;
        self.terminate(&id).await?;
        let get = self.provider.get(&id).await;
        match get {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(instance) if instance.phase == InstancePhase::Terminated => {}
            other => return Err(format!("get after that answered {other:?}")),
        }
        let listed = self.listed(&request).await?;
        check(listed.is_empty(), || "it is still listed".into())
    }

    fn notices(&self) -> Case {
        check(self.provider.interruptions().is_some(), || "there is none".into())
    }

    /// Terminates until the provider says it is gone.
    async fn terminate(&self, id: &InstanceId) -> Case {
        // A cloud that lags may not know a young instance yet: that is not the end of it.
        let lag = self.provider.info().capabilities.list_lag;
        let began = tokio::time::Instant::now();
        self.until("terminate answers NotFound", || async {
            match self.provider.terminate(id).await {
                Ok(()) => Ok(None),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    Ok((lag.is_zero() || began.elapsed() >= lag).then_some(()))
                }
                Err(error) => Err(text(error)),
            }
        })
        .await
    }

    async fn clean_up(&self) -> Case {
        let options = ListOptions::default().with_tag(RUN_TAG, &self.options.run);
        let left: Vec<_> = self.provider.list(options).collect().await;
        let mut ids = Vec::new();
        for instance in left {
            ids.push(instance.map_err(text)?.id);
        }
        for id in &ids {
            self.terminate(id).await?;
        }
        check(ids.is_empty(), || {
            format!("had to terminate {} instances that failed cases left", ids.len())
        })
    }
}
