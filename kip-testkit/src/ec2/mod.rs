//! An EC2 of one region over real HTTP: stateful, and failing when told to, as the real one does without being told.

mod json;
mod market;
mod state;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest as _, Request, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Form, Router};
use futures::stream;

pub use market::{Market, Size, Spot};
pub use state::{Answer, Life, Machine, State};
pub use wire::Params;

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
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
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
            let answer = state.call(&action, &params);
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
