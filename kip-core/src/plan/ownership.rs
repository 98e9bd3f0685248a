//! Tells our instances from others by their tags: the one place that decides what may be adopted or terminated.

use crate::ids::{ClusterUid, LaunchToken, NodeName, PodUid};
use crate::model::Instance;
use crate::provider::tags;

/// Whose an instance is, as far as its tags tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Its tags name another cluster or node, or none: nobody here looks at it.
    Elsewhere,
    /// Its tags name our cluster and node, but no launch of ours can have set all of them. It is reported, never adopted and never
    /// terminated: somebody may depend on it. Why, in a few words.
    Foreign(&'static str),
    /// Launched by a controller of this node.
    Proved(Proof),
}

/// What the tags of an instance of ours say: they were all set by the launch, because its token is made of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The pod it was launched for.
    pub pod: PodUid,
    /// The attempt.
    pub attempt: u32,
    /// The token it was launched with.
    pub token: LaunchToken,
}

/// Whose an instance is. Proved ours is one whose token is the one derived from its own cluster, node, pod and attempt tags and its
/// offering.
pub fn ownership(instance: &Instance, cluster: &ClusterUid, node: &NodeName) -> Ownership {
    let tag = |key: &str| instance.tags.get(key).map(String::as_str);
    if tag(tags::CLUSTER) != Some(cluster.as_str()) || tag(tags::NODE) != Some(node.as_str()) {
        return Ownership::Elsewhere;
    }
    #[cfg(kip_mutants)]
    if crate::mutants::is(crate::mutants::Mutant::SweepForeign) {
        return Ownership::Proved(Proof {
            pod: PodUid::new(tag(tags::POD_UID).unwrap_or_default()),
            attempt: 1,
            token: token_of(instance).unwrap_or_else(|| LaunchToken::from_stored("")),
        });
    }
    let Some(pod) = tag(tags::POD_UID).map(PodUid::new) else {
        return Ownership::Foreign("it names no pod");
    };
    let Some(attempt) = tag(tags::ATTEMPT).and_then(|attempt| attempt.parse::<u32>().ok()) else {
        return Ownership::Foreign("it names no attempt");
    };
    let Some(token) = token_of(instance) else {
        return Ownership::Foreign("it has no launch token");
    };
    if token != LaunchToken::derive(cluster, node, &pod, attempt, &instance.offering) {
        return Ownership::Foreign("its launch token does not belong to its pod, attempt and offering");
    }
    Ownership::Proved(Proof { pod, attempt, token })
}

/// The token in an instance's tags, or the one the provider knows by itself.
pub(crate) fn token_of(instance: &Instance) -> Option<LaunchToken> {
    let tag = instance.tags.get(tags::TOKEN).map(LaunchToken::from_stored);
    tag.or_else(|| instance.token.clone())
}
