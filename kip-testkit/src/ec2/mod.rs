//! An EC2 of one region over real HTTP: stateful, and failing when told to, as the real one does without being told.

mod attribute;
mod chaos;
mod dry_run;
mod json;
mod left_over;
mod market;
mod metadata;
mod route_tables;
mod security_groups;
mod state;
mod sts;
mod vpcs;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest as _, Request, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Form, Router};
use futures::stream;

pub use chaos::Chaos;
pub use left_over::LeftOver;
pub use market::{Market, Size, Spot};
pub use route_tables::RouteTable;
pub use security_groups::{Ingress, SecurityGroup, SecurityGroups};
pub use state::{Answer, Life, Machine, State};
pub use vpcs::Vpc;
pub use wire::Params;

/// The access key of who is no customer but works for the cloud, as the program that boots its machines: nothing goes wrong for
/// them, they see what was launched at once, and their calls are not counted.
pub const HYPERVISOR_KEY: &str = "AKIAHYPERVISOR";

/// What goes wrong with a call.
#[derive(Clone, Debug)]
pub enum Ec2Fault {
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
pub type Call = (String, Params);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    faults: Mutex<Vec<(&'static str, VecDeque<Ec2Fault>)>>,
    calls: Mutex<Vec<Call>>,
    chaos: Mutex<Option<Chaos>>,
}

impl Shared {
    /// Writes down a call and says what goes wrong with it: what a test asked for, else what chance has.
    fn called(&self, action: &str, params: &Params) -> Option<Ec2Fault> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push((action.to_owned(), params.clone()));
        drop(calls);
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let asked_for = faults
            .iter_mut()
            .filter(|(of, _)| *of == action)
            .find_map(|(_, left)| left.pop_front());
        drop(faults);
        asked_for.or_else(|| {
            let mut chaos = self.chaos.lock().unwrap_or_else(PoisonError::into_inner);
            chaos.as_mut().and_then(|chaos| chaos.strike(action))
        })
    }
}

/// An EC2 that is served until it is dropped.
#[derive(Debug)]
pub struct FakeEc2 {
    shared: Arc<Shared>,
    url: String,
    serving: tokio::task::JoinHandle<()>,
}

impl FakeEc2 {
    /// Serves an EC2 with two zones, three subnets, three types and an image for each architecture.
    ///
    /// # Errors
    /// When there is no port on loopback.
    pub async fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let router = metadata::add(Router::new())
            .route("/calls", get(counted))
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the fake EC2 serves");
        });
        Ok(Self { shared, url, serving })
    }

    /// What it knows, to be changed.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the next calls of an action go wrong, one after the other.
    pub fn fail(&self, action: &'static str, faults: impl IntoIterator<Item = Ec2Fault>) {
        let mut all = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((action, faults.into_iter().collect()));
    }

    /// Makes calls go wrong at random from now on.
    pub fn unleash(&self, chaos: Chaos) {
        *self.shared.chaos.lock().unwrap_or_else(PoisonError::into_inner) = Some(chaos);
    }

    /// The parameters of all calls of an action so far.
    pub fn calls(&self, action: &str) -> Vec<Params> {
        let calls = self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls
            .iter()
            .filter(|(called, _)| called == action)
            .map(|(_, params)| params.clone())
            .collect()
    }

    /// Where it is served.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for FakeEc2 {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(Extract(shared): Extract<Arc<Shared>>, headers: HeaderMap, request: Request) -> Response {
    const UNKNOWN: &str = "AWS was not able to validate the provided access credentials";
    let json_action = json::action(&headers);
    let is_json = json_action.is_some();
    let refusal = if is_json { json::refusal } else { refusal };
    let (action, params) = match json_action {
        Some(action) => {
            let body = to_bytes(request.into_body(), usize::MAX).await;
            (action, json::params(&body.unwrap_or_default()))
        }
        None => {
            // What is no form has no action, and is refused for it.
            let form = Form::<BTreeMap<String, String>>::from_request(request, &()).await;
            let mut params = Params(form.map(|Form(pairs)| pairs).unwrap_or_default());
            params.0.remove("Version");
            (params.0.remove("Action").unwrap_or_default(), params)
        }
    };
    let stranger = stranger(&headers);
    if action == sts::ACTION {
        let status = stranger.map_or(StatusCode::OK, |_| StatusCode::FORBIDDEN);
        return (status, sts::answer(stranger.map(|code| (code, UNKNOWN)))).into_response();
    }
    if let Some(refused) = stranger {
        return refusal(refused, UNKNOWN, 401);
    }
    let works_for_the_cloud = is_hypervisor(&headers);
    let fault = if works_for_the_cloud {
        None
    } else {
        shared.called(&action, &params)
    };
    match fault {
        Some(Ec2Fault::Refused(code, status)) => return refusal(code, "as the test asked", status),
        Some(Ec2Fault::LostCall) => return broken(),
        _ => {}
    }
    let answer = {
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if is_json {
            let answer = state.call_json(&action, &params);
            answer.map(|value| json::answer(&value))
        } else {
            let lag = state.lag;
            if works_for_the_cloud {
                state.lag = Duration::ZERO;
            }
            let answer = state.call(&action, &params);
            state.lag = lag;
            answer
                .map(|inner| ([("content-type", "text/xml")], wire::answer(&action, &inner)).into_response())
        }
    };
    match (fault, answer) {
        (Some(Ec2Fault::LostReply), _) => broken(),
        (Some(Ec2Fault::Silence), _) => std::future::pending().await,
        (_, Ok(answer)) => answer,
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

fn is_hypervisor(headers: &HeaderMap) -> bool {
    headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|text| text.contains(&format!("Credential={HYPERVISOR_KEY}/")))
}

/// How often each action was called, one a line.
async fn counted(Extract(shared): Extract<Arc<Shared>>) -> String {
    let mut counts = BTreeMap::<String, usize>::new();
    for (action, _) in shared.calls.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        *counts.entry(action.clone()).or_default() += 1;
    }
    counts
        .into_iter()
        .map(|(action, count)| format!("{action} {count}\n"))
        .collect()
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
