//! What a pod requires of the labels an instance would have as a node.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How a label is compared, as Kubernetes' node selectors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Operator {
    /// The label is there and has one of the values.
    In,
    /// The label has none of the values, or is not there.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The label is a whole number, larger than the one value.
    Gt,
    /// The label is a whole number, smaller than the one value.
    Lt,
}

/// What is required of one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Requirement {
    /// The label, such as `karpenter.k8s.aws/instance-family`.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what; one number for `Gt` and `Lt`, nothing for `Exists` and `DoesNotExist`.
    pub values: BTreeSet<String>,
}

impl Requirement {
    /// A requirement of one label.
    pub fn new(
        key: impl Into<String>,
        operator: Operator,
        values: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            key: key.into(),
            operator,
            values: values.into_iter().map(Into::into).collect(),
        }
    }

    /// Whether it is met by a label of this value; None is a label that is not there.
    pub fn is_met(&self, value: Option<&str>) -> bool {
        let compared = |wanted: fn(i64, i64) -> bool| {
            let bound = self.values.first().and_then(|bound| bound.parse().ok());
            let value = value.and_then(|value| value.parse().ok());
            matches!((value, bound), (Some(value), Some(bound)) if wanted(value, bound))
        };
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => compared(|value, bound| value > bound),
            Operator::Lt => compared(|value, bound| value < bound),
        }
    }
}

impl fmt::Display for Requirement {
    /// As `kubectl` writes selectors: `family in (c7g, m7g)`, `cpu > 4`, `!nvme`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let values = || {
            self.values
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        };
        match self.operator {
            Operator::In => write!(f, "{key} in ({})", values()),
            Operator::NotIn => write!(f, "{key} notin ({})", values()),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::Gt => write!(f, "{key} > {}", values()),
            Operator::Lt => write!(f, "{key} < {}", values()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_compared_as_the_scheduler_compares_it() {
        use Operator::{DoesNotExist, Exists, Gt, In, Lt, NotIn};
        let none: [&str; 0] = [];
        for (operator, values, value, is_met) in [
            (In, &["a", "b"][..], Some("b"), true),
            (In, &["a"], Some("b"), false),
            (In, &["a"], None, false),
            (NotIn, &["a"], Some("b"), true),
            (NotIn, &["a"], Some("a"), false),
            (NotIn, &["a"], None, true),
            (Exists, &none, Some(""), true),
            (Exists, &none, None, false),
            (DoesNotExist, &none, None, true),
            (DoesNotExist, &none, Some("a"), false),
            (Gt, &["9"], Some("10"), true),
            (Gt, &["9"], Some("9"), false),
            (Gt, &["9"], None, false),
            (Gt, &["9"], Some("many"), false),
            (Lt, &["9"], Some("8"), true),
            (Lt, &["9"], Some("9"), false),
            (Lt, &["9"], None, false),
        ] {
            let requirement = Requirement::new("k", operator, values.iter().copied());
            assert_eq!(requirement.is_met(value), is_met, "{requirement} of {value:?}");
        }
    }
}
