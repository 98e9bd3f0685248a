//! What cloud-init does with user-data on a real instance: writes the files it asks for.

use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use flate2::read::MultiGzDecoder;
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::provider::UserData;
use serde::Deserialize;

/// A file to be written before anything else runs.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BootFile {
    /// Path relative to the instance's root.
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    pub(crate) content: Vec<u8>,
}

#[derive(Deserialize)]
struct CloudConfig {
    #[serde(default)]
    write_files: Vec<WriteFile>,
}

#[derive(Deserialize)]
struct WriteFile {
    path: String,
    #[serde(default)]
    content: String,
    #[serde(default)]
    permissions: Option<String>,
    #[serde(default)]
    encoding: Option<String>,
}

/// How gzip begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Most bytes that user-data may unpack to: far more than anybody writes.
const UNPACKED: u64 = 1024 * 1024;

/// The files that user-data asks for, which may be gzip, as cloud-init takes it. Like on any cloud, user-data that is not a `#cloud-config` is accepted and does nothing here.
///
/// # Errors
/// `InvalidRequest` when it is a `#cloud-config` that cloud-init would stumble over.
pub(crate) fn files(user_data: &UserData) -> Result<Vec<BootFile>> {
    let invalid = |message: String| Error::new(ErrorKind::InvalidRequest, "read user-data", message);
    let unpacked;
    let bytes = match user_data.as_bytes() {
        packed if packed.starts_with(&GZIP) => {
            unpacked = unpack(packed)
                .map_err(|_| invalid("it is gzip that is broken, or unpacks to too much".into()))?;
            unpacked.as_slice()
        }
        plain => plain,
    };
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Ok(Vec::new());
    };
    let Some(("#cloud-config", body)) = text.split_once('\n').map(|(head, body)| (head.trim_end(), body))
    else {
        return Ok(Vec::new());
    };
    // The parser's own message may quote the private key.
    let config: CloudConfig =
        serde_norway::from_str(body).map_err(|_| invalid("the #cloud-config is not valid YAML".into()))?;
    config
        .write_files
        .into_iter()
        .map(|file| {
            let path = relative(&file.path).ok_or_else(|| {
                invalid(format!(
                    "write_files: `{}` must be absolute, without `..`",
                    file.path
                ))
            })?;
            let mode = match &file.permissions {
                None => 0o644,
                Some(text) => u32::from_str_radix(text, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o7777)
                    .ok_or_else(|| {
                        invalid(format!("write_files: permissions `{text}` of `{}`", file.path))
                    })?,
            };
            let content = match file.encoding.as_deref() {
                None | Some("text/plain") => file.content.into_bytes(),
                Some("b64" | "base64") => base64::engine::general_purpose::STANDARD
                    .decode(file.content.split_whitespace().collect::<String>())
                    .map_err(|_| invalid(format!("write_files: content of `{}` is not base64", file.path)))?,
                Some(other) => {
                    return Err(invalid(format!(
                        "write_files: encoding `{other}` of `{}`",
                        file.path
                    )));
                }
            };
            Ok(BootFile { path, mode, content })
        })
        .collect()
}

/// Unpacks gzip, up to [`UNPACKED`].
fn unpack(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    MultiGzDecoder::new(packed)
        .take(UNPACKED + 1)
        .read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > UNPACKED {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    Ok(unpacked)
}

fn relative(path: &str) -> Option<PathBuf> {
    let inside = Path::new(path).strip_prefix("/").ok()?;
    (inside.components().next().is_some()
        && inside
            .components()
            .all(|part| matches!(part, Component::Normal(_))))
    .then(|| inside.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn read(text: &str) -> Result<Vec<BootFile>> {
        files(&UserData::new(text))
    }

    #[test]
    fn files_are_taken_from_a_cloud_config_in_json_and_in_yaml() {
        for text in [
            "#cloud-config\n{\"write_files\":[{\"path\":\"/etc/kip/cell.json\",\"permissions\":\"0600\",\"content\":\"a\\nb\"}]}\n",
            "#cloud-config\nruncmd: [x]\nwrite_files:\n- path: /etc/kip/cell.json\n  permissions: '0600'\n  encoding: b64\n  content: YQpi\n",
        ] {
            let files = read(text).unwrap();
            assert_eq!(files.len(), 1);
            assert_eq!(files[0].path, Path::new("etc/kip/cell.json"));
            assert_eq!(
                (files[0].mode, files[0].content.as_slice()),
                (0o600, b"a\nb".as_slice())
            );
        }
        assert!(read("#!/bin/sh\necho hi").unwrap().is_empty());
    }

    /// Clouds take 16 KB, so what is larger comes packed.
    #[test]
    fn packed_user_data_boots_the_same_and_broken_is_refused() {
        let text = "#cloud-config\nwrite_files: [{path: /etc/kip/cell.json, content: a}]\n";
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(text.as_bytes()).unwrap();
        let packed = packer.finish().unwrap();
        let read = files(&UserData::new(packed.clone())).unwrap();
        assert_eq!(read[0].content, b"a");
        let error = files(&UserData::new(&packed[..packed.len() / 2]))
            .map(|_| ())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }

    /// Without this check user-data could write outside of the instance.
    #[test]
    fn no_file_leaves_the_instance() {
        for path in ["../x", "/../x", "etc/x", "/a/../../x", "/"] {
            let error = read(&format!("#cloud-config\nwrite_files: [{{path: '{path}'}}]"))
                .map(|_| ())
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{path}");
        }
    }
}
