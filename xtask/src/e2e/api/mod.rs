//! For proving that the in-process API answers as the real one does: one list of requests with the answers a real
//! kube-apiserver gives (code, reason, shape), put to both.
//!
//! The answers were taken from kube-apiserver 1.37. Where one of the two disagrees with this list, the list or that
//! server is wrong, and the real one decides.

mod custom;
mod discovery;
mod lists;
mod objects;
mod patches;
mod pods;
mod watches;

use anyhow::{Result, bail};
use serde_json::Value;

use super::Case;
use super::client::Answer;

/// The cases of this table.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "api: discovery, versions and health",
        run: discovery::discovery,
    },
    Case {
        name: "api: errors say what was wrong",
        run: discovery::errors,
    },
    Case {
        name: "api: create fills defaults in and refuses what is invalid",
        run: pods::create,
    },
    Case {
        name: "api: update keeps what may not change and notices a stale writer",
        run: pods::update,
    },
    Case {
        name: "api: binding and eviction",
        run: pods::binding,
    },
    Case {
        name: "api: patches of every kind",
        run: patches::patches,
    },
    Case {
        name: "api: server-side apply owns fields",
        run: patches::apply,
    },
    Case {
        name: "api: delete honours preconditions, grace and finalizers",
        run: objects::deletion,
    },
    Case {
        name: "api: config maps and secrets",
        run: objects::config,
    },
    Case {
        name: "api: nodes, leases, events and tokens",
        run: objects::node_objects,
    },
    Case {
        name: "api: list selects, pages and prints tables",
        run: lists::lists,
    },
    Case {
        name: "api: watch tells every change once",
        run: watches::watches,
    },
    Case {
        name: "api: custom resources are checked and pruned",
        run: custom::custom_resources,
    },
];

/// Collects every answer that is not as expected, so that one run shows all of them.
#[derive(Debug, Default)]
struct Expectations {
    mismatches: Vec<String>,
}

impl Expectations {
    /// The code, and the reason of a `Status` (empty: the answer is no failure).
    fn answer(&mut self, what: &str, answer: Answer, code: u16, reason: &str) -> Answer {
        if answer.code != code {
            self.note(what, &answer, &format!("code {} instead of {code}", answer.code));
        } else if !reason.is_empty() {
            let (kind, got) = (answer.at("/kind"), answer.at("/reason"));
            if kind != "Status"
                || got != reason
                || answer.at("/status") != "Failure"
                || answer.at("/code") != code
            {
                self.note(
                    what,
                    &answer,
                    &format!("no Failure Status of reason {reason} and code {code}"),
                );
            }
        }
        answer
    }

    /// The value at a JSON pointer.
    fn field(&mut self, what: &str, answer: &Answer, pointer: &str, want: impl Into<Value>) {
        let want = want.into();
        let got = answer.at(pointer);
        if *got != want {
            self.note(what, answer, &format!("{pointer} is {got} instead of {want}"));
        }
    }

    /// A condition the two above cannot say.
    fn holds(&mut self, what: &str, answer: &Answer, condition: bool, sentence: &str) {
        if !condition {
            self.note(what, answer, &format!("not so: {sentence}"));
        }
    }

    fn note(&mut self, what: &str, answer: &Answer, problem: &str) {
        let body: String = answer.text.chars().take(600).collect();
        self.mismatches.push(format!(
            "{what}: {problem}\n      {} → {} {}",
            answer.request,
            answer.code,
            body.trim_end()
        ));
    }

    fn verdict(self) -> Result<()> {
        if self.mismatches.is_empty() {
            return Ok(());
        }
        bail!(
            "{} answers differ:\n    {}",
            self.mismatches.len(),
            self.mismatches.join("\n    ")
        );
    }
}

/// The collection of a namespaced core resource.
fn core(namespace: &str, resource: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/{resource}")
}
