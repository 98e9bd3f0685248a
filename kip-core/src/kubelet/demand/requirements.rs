//! Reads what a pod requires of labels that only an instance type can answer: Karpenter's `karpenter.k8s.aws/instance-...`, and zones and
//! instance types that are excluded rather than listed.
//!
//! The terms of a node affinity are alternatives. What they say of one label is read elsewhere into plain sets, which are quick to search
//! by; where there are several terms, each is kept whole here too, so that half of one never joins half of another.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, Pod};

use super::selection::{ARCH, CAPACITY, TYPE, ZONE, terms};
use super::{Refusal, VIRTUAL_INSTANCE_TYPE};
use crate::model::{Operator, Requirement};

/// What the names of labels of instance types begin with.
const INSTANCE: &str = "karpenter.k8s.aws/instance-";
/// Listed models are compared as people write them, not letter by letter.
const GPU_NAME: &str = "karpenter.k8s.aws/instance-gpu-name";

/// The alternatives, each with what an annotation requires beside; none when nothing is required.
pub(super) fn read(
    pod: &Pod,
    annotated: BTreeSet<Requirement>,
) -> Result<BTreeSet<BTreeSet<Requirement>>, Refusal> {
    let selector = pod
        .spec
        .iter()
        .filter_map(|spec| spec.node_selector.as_ref())
        .flatten();
    let selected = selector
        .filter(|(key, _)| is_of_instance(key) && *key != GPU_NAME)
        .map(|(key, value)| Requirement::new(key, Operator::In, [value]));
    let always: BTreeSet<Requirement> = annotated.into_iter().chain(selected).collect();
    let terms = terms(pod);
    let is_alternative = terms.len() > 1;
    let mut alternatives = BTreeSet::new();
    for expressions in terms {
        let mut all = always.clone();
        for expression in expressions {
            all.extend(of_expression(expression, is_alternative)?);
        }
        alternatives.insert(all);
    }
    // An alternative that asks for nothing more than is always asked makes the others needless.
    if alternatives.is_empty() || alternatives.contains(&always) {
        alternatives = [always].into();
    }
    alternatives.retain(|all| !all.is_empty());
    Ok(alternatives)
}

fn is_of_instance(key: &str) -> bool {
    key.starts_with(INSTANCE)
}

fn of_expression(
    expression: &NodeSelectorRequirement,
    is_alternative: bool,
) -> Result<Option<Requirement>, Refusal> {
    let key = expression.key.as_str();
    let Some(operator) = operator(&expression.operator) else {
        return Ok(None); // The API server takes no other.
    };
    let mut values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
    let is_in = operator == Operator::In;
    let is_kept = if is_of_instance(key) {
        !(is_in && key == GPU_NAME)
    } else if TYPE.contains(&key) || ZONE.contains(&key) {
        // A list is read into a plain set.
        is_alternative || !is_in
    } else {
        is_alternative && (ARCH.contains(&key) || CAPACITY.contains(&key))
    };
    if !is_kept {
        return Ok(None);
    }
    if TYPE.contains(&key) && values.remove(VIRTUAL_INSTANCE_TYPE) {
        // The node itself is meant. Listed, it allows every type; excluded, it says nothing of types.
        if is_in || values.is_empty() {
            return Ok(None);
        }
    }
    let is_number =
        matches!(values.first(), Some(value) if values.len() == 1 && value.parse::<i64>().is_ok());
    if matches!(operator, Operator::Gt | Operator::Lt) && !is_number {
        return Err(Refusal::invalid(format!(
            "The pod's node affinity uses {} with {key}, which takes one whole number.",
            expression.operator
        )));
    }
    Ok(Some(Requirement::new(key, operator, values)))
}

fn operator(text: &str) -> Option<Operator> {
    Some(match text {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Gt,
        "Lt" => Operator::Lt,
        _ => return None,
    })
}
