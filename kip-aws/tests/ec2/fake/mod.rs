//! An EC2 of one region over real HTTP: stateful, and failing when told to, as the real one does without being told.

pub(crate) mod state;
pub(crate) mod wire;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Form, Router};
use futures::stream;
use kip_aws::{AwsCloud, AwsConfig, AwsCredentials};
use kip_core::ids::{InstanceType, OfferingId, Zone};
use kip_core::model::{Architecture, CapacityType, CpuMillis, Offering, Price};

use state::State;
use wire::Params;

/// What goes wrong with a call.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is refused with this code and HTTP status, and does nothing.
    Refused(&'static str, u16),
    /// It is done, and the connection breaks before the answer is whole.
    LostReply,
    /// It is done, and never answered.
    Silence,
    /// The connection breaks before anything is done.
    LostCall,
}

/// A call that arrived: action and parameters.
pub(crate) type Call = (String, Params);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    faults: Mutex<Vec<(&'static str, VecDeque<Fault>)>>,
    calls: Mutex<Vec<Call>>,
}

/// An EC2 that is served until it is dropped.
pub(crate) struct FakeEc2 {
    shared: Arc<Shared>,
    url: String,
    serving: tokio::task::JoinHandle<()>,
}

impl FakeEc2 {
    /// Serves an EC2 with two zones, three subnets, three types and an image for each architecture.
    pub(crate) async fn start() -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the fake EC2 serves");
        });
        Ok(Self { shared, url, serving })
    }

    /// What it knows, to be changed.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the next calls of an action go wrong, one after the other.
    pub(crate) fn fail(&self, action: &'static str, faults: impl IntoIterator<Item = Fault>) {
        let mut all = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((action, faults.into_iter().collect()));
    }

    /// The parameters of all calls of an action so far.
    pub(crate) fn calls(&self, action: &str) -> Vec<Params> {
        let calls = self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls
            .iter()
            .filter(|(called, _)| called == action)
            .map(|(_, params)| params.clone())
            .collect()
    }

    /// A configuration that leads here.
    pub(crate) fn config(&self) -> AwsConfig {
        let mut config = AwsConfig::default();
        config.region = Some("us-east-1".into());
        config.credentials = Some(AwsCredentials {
            access_key_id: "AKIATEST".to_owned().into(),
            secret_access_key: "secret".to_owned().into(),
        });
        config.endpoint_url = Some(self.url.clone());
        config.vpc_id = Some("vpc-1".into());
        config.images.ids = vec!["ami-0amd".into(), "ami-0arm".into()];
        config.list_lag = std::time::Duration::ZERO;
        config
    }

    /// A cloud on it.
    pub(crate) async fn open(&self, config: AwsConfig) -> kip_core::Result<AwsCloud> {
        AwsCloud::builder(config).offerings(offerings()).open().await
    }
}

impl Drop for FakeEc2 {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The id of an offering.
pub(crate) fn offering(instance_type: &str, zone: &str, capacity_type: CapacityType) -> OfferingId {
    OfferingId {
        instance_type: InstanceType::new(instance_type),
        zone: Zone::new(zone),
        capacity_type,
    }
}

/// What the fake sells, in three zones, of which one has no subnet.
pub(crate) fn offerings() -> Vec<Offering> {
    let mut all = Vec::new();
    for (instance_type, architecture, price) in [
        ("t3.small", Architecture::Amd64, 20),
        ("c7i.large", Architecture::Amd64, 90),
        ("t4g.small", Architecture::Arm64, 17),
    ] {
        for zone in ["us-east-1a", "us-east-1b", "us-east-1f"] {
            for (capacity_type, part) in [(CapacityType::OnDemand, 3), (CapacityType::Spot, 1)] {
                all.push(Offering::new(
                    offering(instance_type, zone, capacity_type),
                    architecture,
                    CpuMillis(2000),
                    kip_core::model::Bytes::gib(2),
                    Price(price * part),
                ));
            }
        }
    }
    all
}

async fn answer(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Response {
    let mut params = Params(pairs.into_iter().collect());
    params.0.remove("Version");
    let action = params.0.remove("Action").unwrap_or_default();
    if let Some(refused) = stranger(&headers) {
        return refusal(
            refused,
            "AWS was not able to validate the provided access credentials",
            401,
        );
    }
    shared
        .calls
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((action.clone(), params.clone()));
    let fault = {
        let mut faults = shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults
            .iter_mut()
            .filter(|(of, _)| *of == action)
            .find_map(|(_, left)| left.pop_front())
    };
    match fault {
        Some(Fault::Refused(code, status)) => return refusal(code, "as the test asked", status),
        Some(Fault::LostCall) => return broken(),
        _ => {}
    }
    let answer = shared
        .state
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .call(&action, &params);
    match (fault, answer) {
        (Some(Fault::LostReply), _) => broken(),
        (Some(Fault::Silence), _) => std::future::pending().await,
        (_, Ok(inner)) => ([("content-type", "text/xml")], wire::answer(&action, &inner)).into_response(),
        // No capacity comes with status 500, as from the real one.
        (_, Err((code, message))) => {
            let status = if code.starts_with("Insufficient") {
                500
            } else {
                400
            };
            refusal(&code, &message, status)
        }
    }
}

/// Why the caller is not let in, when it is not.
fn stranger(headers: &HeaderMap) -> Option<&'static str> {
    let authorization = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())?;
    if authorization.contains("Credential=AKIAEXPIRED/") {
        Some("RequestExpired")
    } else if authorization.contains("Credential=AKIADENIED/") {
        Some("UnauthorizedOperation")
    } else if authorization.starts_with("AWS4-HMAC-SHA256 ") {
        None
    } else {
        Some("MissingAuthenticationToken")
    }
}

fn refusal(code: &str, message: &str, status: u16) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    (status, wire::refusal(code, message)).into_response()
}

/// An answer that begins and breaks off.
fn broken() -> Response {
    let body = stream::iter([Ok(Bytes::from_static(b"<")), Err(std::io::Error::other("cut"))]);
    Response::new(Body::from_stream(body))
}
