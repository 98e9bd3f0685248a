//! `cells.agent`: where cells fetch the agent from, when their image does not have it.

use serde::Serialize;

use kip_core::cell::AgentDownload;
use kip_core::model::Architecture;

use super::document::Section;

/// `cells.agent`. Empty: the image has the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Agent {
    #[serde(skip_serializing_if = "Option::is_none")]
    amd64: Option<Download>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arm64: Option<Download>,
}

/// One architecture's agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Download {
    url: String,
    sha256: String,
}

impl Agent {
    /// Whether the image has the agent.
    pub(crate) fn is_empty(&self) -> bool {
        self.amd64.is_none() && self.arm64.is_none()
    }

    /// What there is to download. All of it was checked when the file was read.
    pub(crate) fn downloads(&self) -> impl Iterator<Item = (Architecture, AgentDownload)> {
        let all = [
            (Architecture::Amd64, &self.amd64),
            (Architecture::Arm64, &self.arm64),
        ];
        all.into_iter().filter_map(|(architecture, download)| {
            let download = download.as_ref()?;
            Some((
                architecture,
                AgentDownload::new(&download.url, &download.sha256).ok()?,
            ))
        })
    }
}

/// Reads the section.
pub(super) fn read(section: Section<'_>) -> Agent {
    let agent = Agent {
        amd64: section.section_if_present("amd64").and_then(read_download),
        arm64: section.section_if_present("arm64").and_then(read_download),
    };
    section.finish();
    agent
}

fn read_download(section: Section<'_>) -> Option<Download> {
    let (url, sha256) = (section.text("url"), section.text("sha256"));
    for (key, is_missing) in [("url", url.is_none()), ("sha256", sha256.is_none())] {
        if is_missing && !section.has(key) {
            section.problem(key, "is required, so that only the agent that is meant is run");
        }
    }
    let download = url.zip(sha256).map(|(url, sha256)| Download { url, sha256 });
    if let Some(Download { url, sha256 }) = &download
        && let Err((key, message)) = AgentDownload::new(url, sha256)
    {
        section.problem(key, message);
    }
    section.finish();
    download
}

#[cfg(all(test, feature = "local"))]
mod tests {
    use crate::config::parse;

    #[test]
    fn an_agent_is_named_for_each_architecture_with_what_proves_it() {
        let sum = "0f".repeat(32);
        let text = format!(
            "{{cloud: {{local: {{}}}}, cells: {{agent: {{arm64: {{url: 'https://x/a', sha256: {sum}}}}}}}}}"
        );
        let agent = parse(&text, "x").unwrap().config.cells.agent;
        assert_eq!(agent.downloads().count(), 1);
        let wrong = "{cloud: {local: {}}, cells: {agent: {amd64: {url: 'file:///a', sha256: x}, arm64: {url: 'https://x/a'}, arm: {}}}}";
        let found: Vec<_> = parse(wrong, "x")
            .unwrap_err()
            .list
            .into_iter()
            .map(|problem| problem.path)
            .collect();
        assert_eq!(
            found,
            [
                "cells.agent.amd64.url",
                "cells.agent.arm64.sha256",
                "cells.agent.arm"
            ]
        );
    }
}
