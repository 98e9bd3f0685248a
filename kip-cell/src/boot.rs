//! Reads the boot configuration and refuses what it could not run with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use kip_cell_api::{BOOT_CONFIG_VERSION, BootConfig};

/// Why the configuration could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The file is missing or unreadable.
    #[error(
        "cannot read the boot configuration {path}; it is written by the cell's user-data, --config names another"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not the JSON it should be.
    #[error("the boot configuration {path} is not valid")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Valid JSON with values that make no sense.
    #[error("the boot configuration {path} cannot be used: {problems}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every problem with its field.
        problems: String,
    },
}

/// Reads and checks the file.
///
/// # Errors
/// Missing or unreadable file, broken JSON, or unusable values: all problems at once, each with its field.
pub fn load(path: &Path) -> Result<BootConfig, BootError> {
    let bytes = std::fs::read(path).map_err(|source| BootError::Read {
        path: path.into(),
        source,
    })?;
    let config: BootConfig = serde_json::from_slice(&bytes).map_err(|source| BootError::Parse {
        path: path.into(),
        source,
    })?;
    let problems = problems(&config);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(BootError::Invalid {
            path: path.into(),
            problems: problems.join("; "),
        })
    }
}

fn problems(config: &BootConfig) -> Vec<String> {
    let mut problems = Vec::new();
    if config.version == 0 || config.version > BOOT_CONFIG_VERSION {
        problems.push(format!(
            "version: {} is not known to this agent, which reads up to {BOOT_CONFIG_VERSION}",
            config.version
        ));
    }
    if config.listen.parse::<SocketAddr>().is_err() {
        problems.push(format!(
            "listen: {:?} is not an address with a port, such as 0.0.0.0:6421",
            config.listen
        ));
    }
    for (field, path) in [
        ("runtimeSocket", &config.runtime_socket),
        ("stateDir", &config.state_dir),
    ] {
        if !path.starts_with('/') {
            problems.push(format!("{field}: {path:?} must be an absolute path"));
        }
    }
    if let Some(metadata) = &config.metadata
        && let Err(problem) = crate::metadata::check(&metadata.endpoint)
    {
        problems.push(format!("metadata.endpoint: {problem}"));
    }
    for (field, pem) in [
        ("caPem", &config.ca_pem),
        ("certificatePem", &config.certificate_pem),
        ("privateKeyPem", &config.private_key_pem),
    ] {
        if !pem.contains("-----BEGIN") {
            problems.push(format!("{field}: holds no PEM block"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever looks at a cell that does not come up must read the cause and the field, not a panic.
    #[test]
    fn errors_name_file_and_field() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("cell.json");
        assert!(matches!(load(&path), Err(BootError::Read { .. })));
        std::fs::write(&path, "{\"version\": }").expect("write");
        assert!(matches!(load(&path), Err(BootError::Parse { .. })));
        let text = r#"{"version":9,"cell":"c","node":"n","podUid":"u","caPem":"","certificatePem":"x",
            "privateKeyPem":"y","listen":"nowhere","stateDir":"relative","newField":1,
            "metadata":{"kind":"later","endpoint":"https://x/y"}}"#;
        std::fs::write(&path, text).expect("write");
        let error = load(&path).expect_err("invalid").to_string();
        for field in [
            "version: 9",
            "listen: \"nowhere\"",
            "stateDir: \"relative\"",
            "caPem: ",
            "privateKeyPem: ",
            "metadata.endpoint: ",
        ] {
            assert!(error.contains(field), "{field} not in {error}");
        }
        assert!(!error.contains("runtimeSocket"), "its default is fine: {error}");
    }
}
