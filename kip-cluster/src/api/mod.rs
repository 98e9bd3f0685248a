//! Answer requests: who asks, for what, may they, and then the verb.

mod admission;
mod body;
mod collection;
pub(crate) mod delete;
pub(crate) mod events;
mod nonresource;
mod prepare;
mod read;
mod request;
mod respond;
mod reviews;
pub(crate) mod subresource;
mod update;
mod watch;
mod write;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Collected, Limited};
use hyper::body::Body as _;

use crate::app::App;
use crate::auth::{Attributes, User};
use crate::proxy;
use crate::registry::Resource;
use crate::status::{ApiError, ApiResult};
use respond::Form;

pub(crate) use delete::{DeleteOptions, delete_object};
pub(crate) use request::{Query, Target, encode};
pub(crate) use respond::{Body, BoxError, Reply, error_reply, full};
pub(crate) use write::{create_object, store_update};

/// How long a refused request may go on sending.
const DRAIN: Duration = Duration::from_secs(2);

/// One authorized request for a resource.
pub(crate) struct Call<'a> {
    pub(crate) app: &'a Arc<App>,
    pub(crate) resource: &'a Arc<Resource>,
    pub(crate) target: &'a Target,
    pub(crate) query: &'a Query,
    pub(crate) user: &'a User,
    form: Form,
    /// The media type of the body, without parameters.
    content_type: &'a str,
    user_agent: &'a str,
    body: Bytes,
}

/// Answers a request. `peer` is who the connection's client certificate is, if it sent one.
pub(crate) async fn handle(app: Arc<App>, peer: Option<User>, request: Request<Body>) -> Reply {
    let mut unread = Some(request);
    let outcome = answer(&app, peer, &mut unread).await;
    if let Some(request) = unread {
        drain(app.limits.body, request.into_body()).await;
    }
    match outcome {
        Ok(reply) => reply,
        Err(error) => {
            if error.code >= 500 && error.code != 504 {
                tracing::warn!(code = error.code, message = %error.message, "request failed");
            }
            error_reply(&error)
        }
    }
}

/// Reads a body nobody wanted, within bounds: on HTTP/2 an answer before the end of the request resets the stream, which some
/// clients, curl among them, take for a failure instead of reading the answer.
async fn drain(limit: usize, body: Body) {
    if !body.is_end_stream() {
        // Too long, too slow or broken: then the client has to live with the reset.
        let _ = tokio::time::timeout(DRAIN, collected(body, limit)).await;
    }
}

/// The whole body, if it is no longer than `limit`. Boxed, because a limit on a body of boxed errors is a future the compiler
/// cannot prove to be `Send` within another one.
fn collected(body: Body, limit: usize) -> BoxFuture<'static, Result<Bytes, BoxError>> {
    Limited::new(body, limit)
        .collect()
        .map(|collected| collected.map(Collected::to_bytes))
        .boxed()
}

fn text<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> &'h str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
}

fn authenticate(app: &App, peer: Option<User>, headers: &HeaderMap) -> ApiResult<User> {
    let header = text(headers, &AUTHORIZATION);
    if let Some((scheme, token)) = header.split_once(' ')
        && scheme.eq_ignore_ascii_case("bearer")
    {
        let audiences = [app.auth.signer.issuer().to_owned()];
        return match app.user_of(token.trim(), &audiences) {
            Ok((user, _)) => Ok(user),
            Err(_) => Err(ApiError::unauthorized()),
        };
    }
    if !header.is_empty() {
        return Err(ApiError::unauthorized());
    }
    Ok(peer.unwrap_or_else(User::anonymous))
}

/// Takes the request out of `unread` once its body is wanted.
async fn answer(app: &Arc<App>, peer: Option<User>, unread: &mut Option<Request<Body>>) -> ApiResult<Reply> {
    let Some(request) = unread.as_ref() else {
        return Err(ApiError::internal("no request to answer"));
    };
    let user = authenticate(app, peer, request.headers())?;
    let query = Query::parse(request.uri().query().unwrap_or(""));
    let path = request.uri().path().to_owned();
    let Some(target) = Target::parse(&path) else {
        let verb = request.method().as_str().to_lowercase();
        let wanted = Attributes {
            verb: &verb,
            path: &path,
            ..Attributes::default()
        };
        app.auth.authorize(&user, &wanted)?;
        return nonresource::answer(app, request.method(), &path, text(request.headers(), &ACCEPT));
    };
    let verb = request::verb(request.method(), &target, &query).ok_or_else(ApiError::method_not_allowed)?;
    // The request about a namespace itself happens in that namespace.
    let namespace = match (target.resource.as_str(), target.namespace.as_str()) {
        ("namespaces", "") => target.name.as_str(),
        (_, namespace) => namespace,
    };
    let wanted = Attributes {
        verb,
        group: &target.group,
        resource: &target.resource,
        subresource: &target.subresource,
        namespace,
        name: &target.name,
        path: &path,
    };
    app.auth.authorize(&user, &wanted)?;
    let registry = app.registry();
    let Some(resource) = registry
        .find(&target.group, &target.version, &target.resource)
        .cloned()
    else {
        // A group that is not served is an unknown path; a resource missing from a served one is told as such.
        let served = registry.of(&target.group, &target.version).next().is_some();
        return if served {
            Err(ApiError::no_resource())
        } else {
            Ok(nonresource::not_found())
        };
    };
    check_scope(&resource, &target, verb)?;
    let Some(request) = unread.take() else {
        return Err(ApiError::internal("no request to answer"));
    };
    if matches!(
        target.subresource.as_str(),
        "exec" | "attach" | "portforward" | "proxy" | "log"
    ) && resource.subresource(&target.subresource).is_some()
    {
        return proxy::relay(app, &target, &query, request).await;
    }
    dispatch(app, &resource, &target, &query, &user, verb, request).await
}

/// The namespace in the path must fit the resource, and the resource must know the verb.
fn check_scope(resource: &Resource, target: &Target, verb: &str) -> ApiResult<()> {
    let misplaced = (!resource.namespaced && !target.namespace.is_empty())
        || (resource.namespaced && target.namespace.is_empty() && !matches!(verb, "list" | "watch"));
    if misplaced {
        let collection_write = resource.namespaced && target.name.is_empty();
        return Err(if collection_write {
            ApiError::method_not_allowed()
        } else {
            ApiError::no_resource()
        });
    }
    let known = match target.subresource.as_str() {
        "" => {
            let fits = match verb {
                "create" => target.name.is_empty(),
                "update" | "patch" => !target.name.is_empty(),
                _ => true,
            };
            fits && resource.verbs.contains(&verb)
        }
        name => {
            let missing = || match resource.is_custom() {
                true => ApiError::not_found(&resource.group, &resource.plural, &target.name),
                false => ApiError::no_resource(),
            };
            let sub = resource.subresource(name).ok_or_else(missing)?;
            sub.verbs.contains(&verb)
        }
    };
    if !known || (!target.rest.is_empty() && target.subresource != "proxy") {
        return Err(if known {
            ApiError::no_resource()
        } else {
            ApiError::method_not_allowed()
        });
    }
    Ok(())
}

async fn dispatch(
    app: &Arc<App>,
    resource: &Arc<Resource>,
    target: &Target,
    query: &Query,
    user: &User,
    verb: &str,
    request: Request<Body>,
) -> ApiResult<Reply> {
    let form = Form::of(text(request.headers(), &ACCEPT))?;
    let content_type = text(request.headers(), &CONTENT_TYPE)
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_owned();
    let user_agent = text(request.headers(), &USER_AGENT).to_owned();
    let body = read_body(app.limits.body, request).await?;
    let call = Call {
        app,
        resource,
        target,
        query,
        user,
        form,
        content_type: &content_type,
        user_agent: &user_agent,
        body,
    };
    match (verb, target.subresource.as_str()) {
        ("get", _) => read::get(&call),
        ("list", "") => read::list(&call),
        ("watch", "") => watch::watch(&call).await,
        ("create", "") if resource.verbs == ["create"] => reviews::answer(&call),
        ("create", "") => write::create(&call),
        ("create", _) => subresource::create(&call),
        ("update", _) => write::update(&call),
        ("patch", _) => write::patch(&call),
        ("delete", "") => collection::delete(&call),
        ("deletecollection", "") => collection::delete_all(&call),
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn read_body(limit: usize, request: Request<Body>) -> ApiResult<Bytes> {
    let announced = text(request.headers(), &CONTENT_LENGTH)
        .parse::<usize>()
        .unwrap_or(0);
    if announced > limit {
        return Err(ApiError::too_large(limit));
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(Bytes::new());
    }
    match collected(request.into_body(), limit).await {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::too_large(limit)),
        Err(error) => Err(ApiError::bad_request(format!(
            "the request body could not be read: {error}"
        ))),
    }
}
