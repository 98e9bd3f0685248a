//! The content of a pod's volumes: files from ConfigMaps, Secrets, tokens and the pod itself; empty directories; paths of the host.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Volume};

use super::field::Field;
use super::{Context, Fetched, TokenWish, env, field};
use crate::kubelet::quantity;
use crate::model::{Bytes, EmptyDir, FileContent, Files, HostPath, VolumeSource};

/// Permission bits of files when nothing is said.
const DEFAULT_MODE: i32 = 0o644;

/// Resolves a volume. The error says what is missing.
pub(super) fn source(context: &mut Context<'_>, volume: &Volume) -> Result<VolumeSource, String> {
    if let Some(map) = &volume.config_map {
        let mode = map.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = map.optional == Some(true);
        let files = config_map(context, &map.name, map.items.as_deref(), mode, optional)?;
        return Ok(VolumeSource::Files(Files { files, secret: false }));
    }
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.clone().unwrap_or_default();
        let mode = secret.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = secret.optional == Some(true);
        let files = secret_files(context, &name, secret.items.as_deref(), mode, optional)?;
        return Ok(VolumeSource::Files(Files { files, secret: true }));
    }
    if let Some(downward) = &volume.downward_api {
        let mode = downward.default_mode.unwrap_or(DEFAULT_MODE);
        let files = downward_files(context, downward.items.as_deref(), mode)?;
        return Ok(VolumeSource::Files(Files { files, secret: false }));
    }
    if let Some(projected) = &volume.projected {
        let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
        let mut all = Files::default();
        for source in projected.sources.iter().flatten() {
            if let Some(map) = &source.config_map {
                let optional = map.optional == Some(true);
                all.files.extend(config_map(
                    context,
                    &map.name,
                    map.items.as_deref(),
                    mode,
                    optional,
                )?);
            }
            if let Some(secret) = &source.secret {
                all.secret = true;
                let optional = secret.optional == Some(true);
                all.files.extend(secret_files(
                    context,
                    &secret.name,
                    secret.items.as_deref(),
                    mode,
                    optional,
                )?);
            }
            if let Some(downward) = &source.downward_api {
                all.files
                    .extend(downward_files(context, downward.items.as_deref(), mode)?);
            }
            if let Some(token) = &source.service_account_token {
                all.secret = true;
                let content = match context.resolved.tokens.get(&TokenWish::of(token)) {
                    Some(Fetched::Found(token)) => token.clone().into_bytes(),
                    Some(Fetched::Failed(error)) => {
                        context.retry = true;
                        return Err(format!("no service account token: {error}"));
                    }
                    Some(Fetched::Missing) | None => {
                        context.retry = true;
                        return Err("no service account token: the service account does not exist".to_owned());
                    }
                };
                all.files.push(file(&token.path, content, mode)?);
            }
        }
        return Ok(VolumeSource::Files(all));
    }
    if let Some(empty) = &volume.empty_dir {
        let size_limit = match &empty.size_limit {
            Some(limit) => quantity::whole(&limit.0).map_err(|error| format!("sizeLimit: {error}"))?,
            None => 0,
        };
        return Ok(VolumeSource::EmptyDir(EmptyDir {
            memory: empty.medium.as_deref() == Some("Memory"),
            size_limit: Bytes(size_limit),
        }));
    }
    if let Some(host) = &volume.host_path {
        return Ok(VolumeSource::HostPath(HostPath {
            path: host.path.clone(),
            kind: host.type_.clone().unwrap_or_default(),
        }));
    }
    Err("its type is not supported".to_owned())
}

fn config_map(
    context: &mut Context<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<Vec<FileContent>, String> {
    let Some(map) = env::config_map(context, name, optional)? else {
        return Ok(Vec::new());
    };
    let text = map
        .data
        .into_iter()
        .flatten()
        .map(|(key, value)| (key, value.into_bytes()));
    let binary = map
        .binary_data
        .into_iter()
        .flatten()
        .map(|(key, value)| (key, value.0));
    let entries: Vec<_> = text.chain(binary).collect();
    selected(&format!("configmap {name:?}"), entries, items, mode, optional)
}

fn secret_files(
    context: &mut Context<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<Vec<FileContent>, String> {
    let Some(secret) = env::secret(context, name, optional)? else {
        return Ok(Vec::new());
    };
    let entries = secret
        .data
        .into_iter()
        .flatten()
        .map(|(key, value)| (key, value.0));
    selected(
        &format!("secret {name:?}"),
        entries.collect(),
        items,
        mode,
        optional,
    )
}

fn selected(
    object: &str,
    entries: Vec<(String, Vec<u8>)>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<Vec<FileContent>, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return entries
            .into_iter()
            .map(|(key, content)| file(&key, content, mode))
            .collect();
    };
    let mut files = Vec::new();
    for item in items {
        match entries.iter().find(|(key, _)| *key == item.key) {
            Some((_, content)) => files.push(file(&item.path, content.clone(), item.mode.unwrap_or(mode))?),
            None if optional => {}
            None => return Err(format!("{object} has no key {:?}", item.key)),
        }
    }
    Ok(files)
}

fn downward_files(
    context: &mut Context<'_>,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: i32,
) -> Result<Vec<FileContent>, String> {
    let mut files = Vec::new();
    for item in items.unwrap_or_default() {
        let content = if let Some(reference) = &item.field_ref {
            match field::field(context, &reference.field_path)? {
                Field::Text(text) => text,
                Field::PodIp | Field::PodIps => {
                    context.facts.pod_ip.map(|ip| ip.to_string()).ok_or_else(|| {
                        format!("{} is not known before the pod starts", reference.field_path)
                    })?
                }
            }
        } else if let Some(selector) = &item.resource_field_ref {
            let name = selector.container_name.as_deref().unwrap_or_default();
            let spec = context.pod.spec.as_ref();
            let container = spec
                .and_then(|spec| {
                    let mut all = spec
                        .containers
                        .iter()
                        .chain(spec.init_containers.iter().flatten());
                    all.find(|container| container.name == name)
                })
                .ok_or_else(|| format!("there is no container {name:?}"))?;
            field::resource(context, container, selector)?
        } else {
            return Err(format!("file {:?} has no source that is supported", item.path));
        };
        files.push(file(&item.path, content.into_bytes(), item.mode.unwrap_or(mode))?);
    }
    Ok(files)
}

fn file(path: &str, content: Vec<u8>, mode: i32) -> Result<FileContent, String> {
    let unsafe_path = path.is_empty()
        || path.starts_with('/')
        || path.split('/').any(|part| part == ".." || part.is_empty());
    if unsafe_path {
        return Err(format!("{path:?} is no path inside the volume"));
    }
    Ok(FileContent {
        path: path.to_owned(),
        content,
        mode: u32::try_from(mode & 0o7777).unwrap_or(0o644),
    })
}
