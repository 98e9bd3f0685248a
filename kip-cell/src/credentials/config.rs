//! The kubelet's `CredentialProviderConfig`: read and checked, all problems at once.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::Value;

use super::matching::Pattern;

/// Versions of the file, which differ in nothing that is read here.
const CONFIG_VERSIONS: [&str; 3] = [
    "kubelet.config.k8s.io/v1",
    "kubelet.config.k8s.io/v1beta1",
    "kubelet.config.k8s.io/v1alpha1",
];

/// Versions of what is spoken with a plugin, which differ in nothing but their name.
const PLUGIN_VERSIONS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
];

/// One plugin, and when it is asked.
#[derive(Debug, Clone)]
pub(super) struct Provider {
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) images: Vec<Pattern>,
    /// How long an answer holds that does not say so itself.
    pub(super) default_cache_duration: Duration,
    pub(super) api_version: String,
    pub(super) args: Vec<String>,
    /// Added to the agent's own environment.
    pub(super) env: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: String,
    kind: String,
    #[serde(default)]
    providers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    match_images: Vec<String>,
    default_cache_duration: Option<String>,
    #[serde(default)]
    api_version: String,
    args: Option<Vec<String>>,
    env: Option<Vec<Variable>>,
    token_attributes: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

/// Reads the file's text; plugins lie in `bin_dir`. JSON is YAML.
pub(super) fn parse(text: &str, bin_dir: &Path) -> Result<Vec<Provider>, String> {
    let document: Document = serde_norway::from_str(text).map_err(|error| error.to_string())?;
    let mut problems = Vec::new();
    if !CONFIG_VERSIONS.contains(&document.api_version.as_str()) {
        problems.push(format!(
            "apiVersion: {:?} is not known; write {}",
            document.api_version, CONFIG_VERSIONS[0]
        ));
    }
    if document.kind != "CredentialProviderConfig" {
        problems.push(format!(
            "kind: {:?} must be CredentialProviderConfig",
            document.kind
        ));
    }
    if document.providers.is_empty() {
        problems.push("providers: at least one is needed".to_owned());
    }
    let mut providers: Vec<Provider> = Vec::new();
    for (index, entry) in document.providers.into_iter().enumerate() {
        let is_double = providers.iter().any(|known| known.name == entry.name);
        let mut problem = |field: &str, message: String| {
            problems.push(format!("providers[{index}].{field}: {message}"));
        };
        if is_double {
            problem("name", format!("{:?} is there twice", entry.name));
        }
        providers.extend(provider(entry, bin_dir, &mut problem));
    }
    if problems.is_empty() {
        Ok(providers)
    } else {
        Err(problems.join("; "))
    }
}

fn provider(entry: Entry, bin_dir: &Path, problem: &mut impl FnMut(&str, String)) -> Option<Provider> {
    let name = entry.name;
    if name.is_empty() || name.contains(['/', ' ']) || name == "." || name == ".." {
        problem(
            "name",
            format!("{name:?} is not the name of a file in the plugins' folder"),
        );
        return None;
    }
    let program = bin_dir.join(&name);
    let is_program = std::fs::metadata(&program)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    if !is_program {
        problem("name", format!("there is no program {}", program.display()));
    }
    if entry.match_images.is_empty() {
        problem("matchImages", "at least one pattern is needed".into());
    }
    let mut images = Vec::new();
    for pattern in &entry.match_images {
        match Pattern::parse(pattern) {
            Ok(pattern) => images.push(pattern),
            Err(error) => problem("matchImages", error),
        }
    }
    let default_cache_duration = match entry.default_cache_duration.as_deref().map(duration) {
        Some(Ok(duration)) => duration,
        Some(Err(error)) => {
            problem("defaultCacheDuration", error);
            Duration::ZERO
        }
        None => {
            problem("defaultCacheDuration", "is required, such as 12h".into());
            Duration::ZERO
        }
    };
    if !PLUGIN_VERSIONS.contains(&entry.api_version.as_str()) {
        let message = format!(
            "{:?} is not known; write {}",
            entry.api_version, PLUGIN_VERSIONS[0]
        );
        problem("apiVersion", message);
    }
    if entry.token_attributes.is_some() {
        let message = "is not possible on a cell, which has no credential of the cluster to ask for tokens with; remove it";
        problem("tokenAttributes", message.into());
    }
    Some(Provider {
        name,
        program,
        images,
        default_cache_duration,
        api_version: entry.api_version,
        args: entry.args.unwrap_or_default(),
        env: entry
            .env
            .unwrap_or_default()
            .into_iter()
            .map(|variable| (variable.name, variable.value))
            .collect(),
    })
}

/// A duration as Go writes it: `12h`, `1h30m`, `0s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 12h or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let duration: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(duration).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bin_dir() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        let program = folder.path().join("ecr-credential-provider");
        std::fs::write(&program, "#!/bin/sh\n").expect("write");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("mode");
        folder
    }

    /// The form of Kubernetes' documentation, and the JSON that EKS images carry.
    #[test]
    fn files_of_a_kubelet_are_read() {
        let folder = bin_dir();
        let yaml = r#"
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: ecr-credential-provider
    matchImages:
      - "*.dkr.ecr.*.amazonaws.com"
      - "*.dkr.ecr.*.amazonaws.com.cn"
    defaultCacheDuration: "12h"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    args:
      - get-credentials
    env:
      - name: AWS_PROFILE
        value: example_profile
"#;
        let json = r#"{"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [{
            "name": "ecr-credential-provider", "matchImages": ["*.dkr.ecr.*.amazonaws.com", "*.dkr.ecr.*.amazonaws.com.cn"],
            "defaultCacheDuration": "12h", "apiVersion": "credentialprovider.kubelet.k8s.io/v1"}]}"#;
        for (text, args) in [(yaml, 1), (json, 0)] {
            let providers = parse(text, folder.path()).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(providers.len(), 1);
            let provider = &providers[0];
            assert_eq!(provider.program, folder.path().join("ecr-credential-provider"));
            assert_eq!(provider.default_cache_duration, Duration::from_secs(12 * 3600));
            assert_eq!((provider.images.len(), provider.args.len()), (2, args));
        }
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_field() {
        let folder = bin_dir();
        let text = r#"
apiVersion: kubelet.config.k8s.io/v7
kind: Config
providers:
- {name: ../x, matchImages: [a], defaultCacheDuration: 0s, apiVersion: credentialprovider.kubelet.k8s.io/v1}
- {name: missing, matchImages: ["https://x"], defaultCacheDuration: soon, apiVersion: v1, tokenAttributes: {}}
- {name: ecr-credential-provider}
"#;
        let error = parse(text, folder.path()).expect_err("invalid");
        for says in [
            "apiVersion: \"kubelet.config.k8s.io/v7\"",
            "kind: ",
            "providers[0].name: ",
            "providers[1].name: there is no program",
            "providers[1].matchImages: ",
            "providers[1].defaultCacheDuration: \"soon\"",
            "providers[1].apiVersion: ",
            "providers[1].tokenAttributes: ",
            "providers[2].matchImages: ",
            "providers[2].defaultCacheDuration: is required",
        ] {
            assert!(error.contains(says), "{says} is not in {error}");
        }
        let unknown = "{apiVersion: kubelet.config.k8s.io/v1, kind: CredentialProviderConfig, provider: []}";
        let error = parse(unknown, folder.path()).expect_err("unknown field");
        assert!(error.contains("provider"), "{error}");
    }

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in [
            ("12h", 43_200),
            ("1h30m", 5400),
            ("0s", 0),
            ("0", 0),
            ("6h0m0s", 21_600),
            ("1m", 60),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert!(duration("-1h").is_err());
        assert!(duration("").is_err());
    }
}
