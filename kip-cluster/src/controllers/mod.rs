//! The housekeeping a cluster cannot do without: namespaces get their account and CA, and end with their contents.
//!
//! Event-driven: one task that looks again whenever the store changed. What is not here (Deployments, Jobs,
//! owner-reference garbage collection, node lifecycle) needs a real controller-manager.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::delete::CLEANUP;
use crate::api::{DeleteOptions, create_object, delete_object, store_update};
use crate::app::{App, DEFINITIONS};
use crate::apply::Writer;
use crate::object::{self, child, meta_mut};
use crate::registry::Resource;
use crate::store::{Key, Object};

/// Works until the cluster stops.
pub(crate) async fn run(app: Arc<App>) {
    let store = app.store.subscribe_all();
    loop {
        let changed = store.changed();
        for namespace in app.store.list("/namespaces", None).1 {
            if object::is_deleting(&namespace) {
                end_namespace(&app, &namespace);
            } else {
                furnish_namespace(&app, &namespace);
            }
        }
        for definition in app.store.list(DEFINITIONS, None).1 {
            if object::is_deleting(&definition) {
                end_definition(&app, &definition);
            }
        }
        tokio::select! {
            biased;
            () = app.stopping.cancelled() => return,
            () = changed => {}
        }
    }
}

fn writer(app: &App) -> Writer<'static> {
    Writer {
        manager: "kube-controller-manager",
        api_version: "v1",
        subresource: "",
        at: app.origin.now(),
    }
}

/// Creates a built-in object unless it is there.
pub(crate) fn ensure(app: &App, group: &str, plural: &str, object: Value) {
    let registry = app.registry();
    let Some(resource) = registry.find(group, "v1", plural) else {
        return;
    };
    if app.store.get(&resource.table, &Key::of(&object)).is_some() {
        return;
    }
    let name = object::name(&object).to_owned();
    match create_object(app, resource, object, Some(writer(app)), false) {
        Ok(_) => {}
        // Somebody was faster, or the namespace just began to end: both are fine.
        Err(error) if matches!(error.reason, "AlreadyExists" | "Forbidden" | "NotFound") => {}
        Err(error) => tracing::error!(plural, name, message = %error.message, "cannot create"),
    }
}

/// Gives a namespace what pods in it need: the account `default` and the authority's certificate.
pub(crate) fn furnish_namespace(app: &App, namespace: &Value) {
    if object::is_deleting(namespace) {
        return;
    }
    let name = object::name(namespace);
    ensure(
        app,
        "",
        "serviceaccounts",
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": name, "name": "default"}}),
    );
    ensure(
        app,
        "",
        "configmaps",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": name, "name": "kube-root-ca.crt",
            "annotations": {"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using \
internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."}},
            "data": {"ca.crt": app.ca_pem()}}),
    );
}

fn delete_all(app: &App, objects: impl Iterator<Item = (Arc<Resource>, Object)>) {
    for (resource, object) in objects {
        if object::is_deleting(&object) {
            continue;
        }
        match delete_object(app, &resource, &Key::of(&object), &DeleteOptions::default()) {
            Ok(_) => {}
            Err(error) if error.reason == "NotFound" => {}
            Err(error) => {
                tracing::error!(name = object::name(&object), message = %error.message, "cannot delete")
            }
        }
    }
}

/// Deletes what is in an ending namespace, and the namespace itself once it is empty.
fn end_namespace(app: &App, namespace: &Object) {
    let registry = app.registry();
    let contents = app.store.contents(object::name(namespace));
    if contents.is_empty() {
        finish(app, "", "namespaces", namespace, "finalize", |new| {
            child(new, "spec").remove("finalizers");
        });
        return;
    }
    let known = contents.into_iter().filter_map(|(table, object)| {
        let resource = registry.of_table(&table).map(Arc::clone);
        Some((resource?, object))
    });
    delete_all(app, known);
}

/// Deletes the objects of an ending definition, and the definition itself once none is left.
fn end_definition(app: &App, definition: &Object) {
    let registry = app.registry();
    let text = |path: &[&str]| object::str_at(definition, path).unwrap_or("");
    let table = format!(
        "{}/{}",
        text(&["spec", "group"]),
        text(&["spec", "names", "plural"])
    );
    let (_, objects) = app.store.list(&table, None);
    let resource = registry.of_table(&table).map(Arc::clone);
    let Some(resource) = resource.filter(|_| !objects.is_empty()) else {
        finish(
            app,
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            definition,
            "",
            |new| {
                let meta = meta_mut(new);
                if let Some(Value::Array(finalizers)) = meta.get_mut("finalizers") {
                    finalizers.retain(|finalizer| finalizer != CLEANUP);
                }
            },
        );
        return;
    };
    delete_all(
        app,
        objects.into_iter().map(|object| (Arc::clone(&resource), object)),
    );
}

/// Writes the last change of an ending object. If it changed in between, the next turn sees that.
fn finish(
    app: &App,
    group: &str,
    plural: &str,
    old: &Object,
    subresource: &str,
    change: impl Fn(&mut Value),
) {
    let registry = app.registry();
    let Some(resource) = registry.find(group, "v1", plural) else {
        return;
    };
    let mut new = (**old).clone();
    change(&mut new);
    let writer = Writer {
        subresource,
        ..writer(app)
    };
    // Refused means changed, and a change wakes this task again.
    let _ = store_update(app, resource, old, new, writer, false, false);
}
