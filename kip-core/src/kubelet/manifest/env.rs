//! The environment of a container: `envFrom` in order, then `env` with expansion, then service variables where nothing else is.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource};

use super::field::Field;
use super::{Context, Fetched, expand, field, services};
use crate::model::{EnvValue, EnvVar};

/// A resolved environment, in the order of its making.
#[derive(Debug, Default)]
pub(super) struct Environment {
    variables: Vec<EnvVar>,
    index: BTreeMap<String, usize>,
    pod_ip: Option<String>,
}

impl Environment {
    fn set(&mut self, name: &str, value: EnvValue) {
        let variable = EnvVar {
            name: name.to_owned(),
            value,
        };
        match self.index.get(name) {
            Some(&at) => self.variables[at] = variable,
            None => {
                self.index.insert(name.to_owned(), self.variables.len());
                self.variables.push(variable);
            }
        }
    }

    /// The text of a variable, when it is known here.
    fn text(&self, name: &str) -> Option<String> {
        match &self.variables.get(*self.index.get(name)?)?.value {
            EnvValue::Text(text) => Some(text.clone()),
            EnvValue::PodIp | EnvValue::PodIps => self.pod_ip.clone(),
        }
    }

    /// Expands `$(NAME)` in a text.
    pub(super) fn expand(&self, text: &str) -> String {
        expand::expand(text, &|name| self.text(name))
    }

    /// The variables.
    pub(super) fn into_variables(self) -> Vec<EnvVar> {
        self.variables
    }
}

/// Resolves it. The error is what the container waits for, in words.
pub(super) fn environment(context: &mut Context<'_>, container: &Container) -> Result<Environment, String> {
    let mut environment = Environment {
        pod_ip: context.facts.pod_ip.map(|ip| ip.to_string()),
        ..Environment::default()
    };
    let links = services::variables(&context.resolved.services);
    from_objects(context, container, &mut environment)?;
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => {
                let text = variable.value.as_deref().unwrap_or_default();
                let expanded = expand::expand(text, &|name| {
                    environment.text(name).or_else(|| links.get(name).cloned())
                });
                Some(EnvValue::Text(expanded))
            }
            Some(source) => from_source(context, container, &variable.name, source)?,
        };
        if let Some(value) = value {
            environment.set(&variable.name, value);
        }
    }
    for (name, value) in links {
        if !environment.index.contains_key(&name) {
            environment.set(&name, EnvValue::Text(value));
        }
    }
    Ok(environment)
}

fn from_objects(
    context: &mut Context<'_>,
    container: &Container,
    environment: &mut Environment,
) -> Result<(), String> {
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut invalid = Vec::new();
        let entries: Vec<(String, Vec<u8>)> = if let Some(reference) = &from.config_map_ref {
            let optional = reference.optional == Some(true);
            match config_map(context, &reference.name, optional)? {
                Some(map) => map
                    .data
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| (key, value.into_bytes()))
                    .collect(),
                None => continue,
            }
        } else if let Some(reference) = &from.secret_ref {
            let optional = reference.optional == Some(true);
            match secret(context, &reference.name, optional)? {
                Some(secret) => secret
                    .data
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| (key, value.0))
                    .collect(),
                None => continue,
            }
        } else {
            continue;
        };
        for (key, value) in entries {
            let name = format!("{prefix}{key}");
            if is_name(&name) {
                environment.set(
                    &name,
                    EnvValue::Text(String::from_utf8_lossy(&value).into_owned()),
                );
            } else {
                invalid.push(key);
            }
        }
        if !invalid.is_empty() {
            invalid.sort();
            context.warn(
                "InvalidEnvironmentVariableNames",
                format!(
                    "Keys [{}] of envFrom in container {:?} were skipped since they are no names of environment variables.",
                    invalid.join(", "),
                    container.name
                ),
            );
        }
    }
    Ok(())
}

/// Kubernetes 1.34 and later take any printable ASCII character but `=`.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=')
}

fn from_source(
    context: &mut Context<'_>,
    container: &Container,
    name: &str,
    source: &EnvVarSource,
) -> Result<Option<EnvValue>, String> {
    if let Some(key) = &source.config_map_key_ref {
        let optional = key.optional == Some(true);
        let Some(map) = config_map(context, &key.name, optional)? else {
            return Ok(None);
        };
        return match map.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(value) => Ok(Some(EnvValue::Text(value.clone()))),
            None => missing_key(context, "ConfigMap", &key.name, &key.key, optional),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let optional = key.optional == Some(true);
        let Some(secret) = secret(context, &key.name, optional)? else {
            return Ok(None);
        };
        return match secret.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(value) => Ok(Some(EnvValue::Text(
                String::from_utf8_lossy(&value.0).into_owned(),
            ))),
            None => missing_key(context, "Secret", &key.name, &key.key, optional),
        };
    }
    if let Some(reference) = &source.field_ref {
        return Ok(Some(match field::field(context, &reference.field_path)? {
            Field::Text(text) => EnvValue::Text(text),
            Field::PodIp => EnvValue::PodIp,
            Field::PodIps => EnvValue::PodIps,
        }));
    }
    if let Some(selector) = &source.resource_field_ref {
        let other = selector
            .container_name
            .as_deref()
            .filter(|other| !other.is_empty() && *other != container.name);
        if let Some(other) = other {
            return Err(format!(
                "environment variable {name:?} refers to a resource of container {other:?}; only its own is allowed"
            ));
        }
        return Ok(Some(EnvValue::Text(field::resource(
            context, container, selector,
        )?)));
    }
    Err(format!(
        "environment variable {name:?} has a source that is not supported; use configMapKeyRef, secretKeyRef, fieldRef or resourceFieldRef"
    ))
}

fn missing_key(
    context: &mut Context<'_>,
    kind: &str,
    object: &str,
    key: &str,
    optional: bool,
) -> Result<Option<EnvValue>, String> {
    let namespace = context.pod.metadata.namespace.as_deref().unwrap_or_default();
    let message = format!("couldn't find key {key} in {kind} {namespace}/{object}");
    if optional {
        context.warn(
            &format!("Optional{kind}KeyNotFound"),
            format!("skipping optional variable: {message}"),
        );
        return Ok(None);
    }
    context.warn(&format!("Mandatory{kind}KeyNotFound"), message.clone());
    Err(message)
}

/// The ConfigMap; None when it is optional and cannot be had.
pub(super) fn config_map(
    context: &mut Context<'_>,
    name: &str,
    optional: bool,
) -> Result<Option<k8s_openapi::api::core::v1::ConfigMap>, String> {
    let fetched = context.resolved.config_maps.get(name).cloned();
    object(context, "ConfigMap", name, fetched, optional)
}

/// The Secret; None when it is optional and cannot be had.
pub(super) fn secret(
    context: &mut Context<'_>,
    name: &str,
    optional: bool,
) -> Result<Option<k8s_openapi::api::core::v1::Secret>, String> {
    let fetched = context.resolved.secrets.get(name).cloned();
    object(context, "Secret", name, fetched, optional)
}

fn object<T>(
    context: &mut Context<'_>,
    kind: &str,
    name: &str,
    fetched: Option<Fetched<T>>,
    optional: bool,
) -> Result<Option<T>, String> {
    let lower = kind.to_ascii_lowercase();
    let (reason, message) = match fetched {
        Some(Fetched::Found(object)) => return Ok(Some(object)),
        Some(Fetched::Missing) | None => ("NotFound", format!("{lower} {name:?} not found")),
        Some(Fetched::Failed(error)) => {
            context.retry = true;
            (
                "FailedToRead",
                format!("{lower} {name:?} could not be read: {error}"),
            )
        }
    };
    let necessity = if optional { "Optional" } else { "Mandatory" };
    let reason = if reason == "NotFound" {
        format!("{necessity}{kind}NotFound")
    } else {
        format!("FailedToRead{necessity}{kind}")
    };
    context.warn(&reason, message.clone());
    if optional { Ok(None) } else { Err(message) }
}
