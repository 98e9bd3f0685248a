//! Image names: whether one can be parsed, its registry, and which pull secret fits it.

use kip_cell_api::v1::PullSecret;

use crate::cri::v1::AuthConfig;

const DEFAULT_REGISTRY: &str = "docker.io";

/// Checks an image name; the error is the kubelet's for `InvalidImageName`.
pub(crate) fn check(image: &str) -> Result<(), String> {
    let refused = |why: &str| {
        Err(format!(
            "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {why}"
        ))
    };
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    if let Some(digest) = digest {
        let hex = digest.split_once(':').map(|(_, hex)| hex).unwrap_or_default();
        if hex.len() < 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return refused("invalid digest format");
        }
    }
    let (repository, tag) = split_tag(rest);
    if let Some(tag) = tag {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if tag.is_empty() || tag.len() > 128 || !tag.bytes().all(good) || tag.starts_with(['.', '-']) {
            return refused("invalid reference format");
        }
    }
    let (_, path) = split_registry(repository);
    let bad_part = |part: &str| {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
        let edge = |c: char| matches!(c, '_' | '.' | '-');
        part.is_empty() || !part.bytes().all(good) || part.starts_with(edge) || part.ends_with(edge)
    };
    if path.split('/').any(bad_part) {
        let upper = path.bytes().any(|b| b.is_ascii_uppercase());
        return refused(if upper {
            "invalid reference format: repository name must be lowercase"
        } else {
            "invalid reference format"
        });
    }
    Ok(())
}

/// The credentials for an image: of the secrets whose registry (and path) it lies under, the most specific.
pub(crate) fn credentials(image: &str, secrets: &[PullSecret]) -> Option<AuthConfig> {
    let name = image.split('@').next().unwrap_or(image);
    let (registry, path) = split_registry(split_tag(name).0);
    let full = format!("{registry}/{path}");
    let matching = secrets
        .iter()
        .filter(|secret| lies_under(&full, &normalized(&secret.registry)));
    let secret = matching.max_by_key(|secret| normalized(&secret.registry).len())?;
    Some(AuthConfig {
        username: secret.username.clone(),
        password: secret.password.clone(),
        server_address: server_address(registry),
        identity_token: secret.identity_token.clone(),
        ..Default::default()
    })
}

/// An image's repository with its registry and without tag or digest: `docker.io/library/busybox` for `busybox:1.35`.
pub(crate) fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    match split_registry(split_tag(name).0) {
        (DEFAULT_REGISTRY, path) if !path.contains('/') => format!("{DEFAULT_REGISTRY}/library/{path}"),
        (registry, path) => format!("{registry}/{path}"),
    }
}

/// For whom a login is, in the form containerd compares with the host it asks: a URL. In any other form the login is not used, or the pull
/// fails; without one it would go to mirrors too.
pub(crate) fn server_address(registry: &str) -> String {
    match registry {
        DEFAULT_REGISTRY => "https://registry-1.docker.io".into(),
        other => format!("https://{other}"),
    }
}

/// A key of `.dockerconfigjson` without scheme and API path; Docker Hub's historic names become its own.
pub(crate) fn normalized(registry: &str) -> String {
    let bare = registry
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let bare = bare.trim_end_matches("/v1").trim_end_matches("/v2");
    match bare {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DEFAULT_REGISTRY.into(),
        other => other.into(),
    }
}

/// `*.example.com` matches one label, as in the kubelet.
fn lies_under(full: &str, prefix: &str) -> bool {
    let (host, path) = prefix.split_once('/').unwrap_or((prefix, ""));
    let (full_host, full_path) = full.split_once('/').unwrap_or((full, ""));
    let host_fits = {
        let (wanted, got): (Vec<&str>, Vec<&str>) =
            (host.split('.').collect(), full_host.split('.').collect());
        wanted.len() == got.len() && wanted.iter().zip(&got).all(|(w, g)| *w == "*" || w == g)
    };
    let path_fits = path.is_empty() || full_path == path || full_path.starts_with(&format!("{path}/"));
    host_fits && path_fits
}

fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        // A colon before the last slash belongs to the registry's port.
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}

fn split_registry(repository: &str) -> (&str, &str) {
    match repository.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (DEFAULT_REGISTRY, repository),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A typo in an image name must be reported as such, not as a registry that does not answer.
    #[test]
    fn names() {
        for good in [
            "busybox",
            "busybox:1.35",
            "docker.io/library/busybox:1.35",
            "localhost:5000/a/b",
            "gcr.io/p/i@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "UPPER",
            "a:b c",
            "busybox:",
            "a//b",
            "a@sha256:12",
            "-a",
            "http://x/y",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check("Nginx").expect_err("upper").contains("must be lowercase"));
    }

    #[test]
    fn repositories_are_named_as_the_kubelet_names_them() {
        for (image, name) in [
            ("busybox", "docker.io/library/busybox"),
            ("team/app:1", "docker.io/team/app"),
            ("docker.io/busybox", "docker.io/library/busybox"),
            ("localhost:5000/a/b:2", "localhost:5000/a/b"),
            ("r.io/a@sha256:12", "r.io/a"),
        ] {
            assert_eq!(repository(image), name, "{image}");
        }
    }

    #[test]
    fn most_specific_secret_wins() {
        let secret = |registry: &str| PullSecret {
            registry: registry.into(),
            username: registry.into(),
            ..Default::default()
        };
        let secrets = [
            secret("https://index.docker.io/v1/"),
            secret("r.example.com"),
            secret("r.example.com/team"),
            secret("*.corp.io"),
        ];
        let user = |image: &str| credentials(image, &secrets).map(|auth| auth.username);
        assert_eq!(user("busybox").as_deref(), Some("https://index.docker.io/v1/"));
        assert_eq!(user("r.example.com/other/a:1").as_deref(), Some("r.example.com"));
        assert_eq!(
            user("r.example.com/team/a:1").as_deref(),
            Some("r.example.com/team")
        );
        assert_eq!(user("r.example.com/teams/a").as_deref(), Some("r.example.com"));
        assert_eq!(user("a.corp.io/x").as_deref(), Some("*.corp.io"));
        assert_eq!(user("other.io/x"), None);
        let address = |image: &str| credentials(image, &secrets).map(|auth| auth.server_address);
        assert_eq!(
            address("busybox").as_deref(),
            Some("https://registry-1.docker.io")
        );
        assert_eq!(
            address("r.example.com/team/a:1").as_deref(),
            Some("https://r.example.com")
        );
    }
}
