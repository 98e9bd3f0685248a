//! An EC2 of one region over real HTTP: stateful, and failing when told to, as the real one does without being told.

mod attribute;
mod chaos;
mod state;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Form, Router};
use futures::stream;

pub use chaos::Chaos;
pub use state::{Answer, Life, Machine, State};
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
        let router = Router::new()
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
    if is_hypervisor(&headers) {
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lag = std::mem::take(&mut state.lag);
        let answer = state.call(&action, &params);
        state.lag = lag;
        drop(state);
        return told(&action, answer);
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
    let fault = fault.or_else(|| {
        let mut chaos = shared.chaos.lock().unwrap_or_else(PoisonError::into_inner);
        chaos.as_mut().and_then(|chaos| chaos.strike(&action))
    });
    match fault {
        Some(Ec2Fault::Refused(code, status)) => return refusal(code, "as the test asked", status),
        Some(Ec2Fault::LostCall) => return broken(),
        _ => {}
    }
    let answer = shared
        .state
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .call(&action, &params);
    match (fault, answer) {
        (Some(Ec2Fault::LostReply), _) => broken(),
        (Some(Ec2Fault::Silence), _) => std::future::pending().await,
        (_, answer) => told(&action, answer),
    }
}

fn told(action: &str, answer: Answer) -> Response {
    match answer {
        Ok(inner) => ([("content-type", "text/xml")], wire::answer(action, &inner)).into_response(),
        // No capacity comes with status 500, as from the real one.
        Err((code, message)) => {
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
