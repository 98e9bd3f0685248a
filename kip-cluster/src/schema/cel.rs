//! Hold custom objects to the `x-kubernetes-validations` of their definition.

use kube_cel::{CompiledSchema, compile_schema, validate_compiled};
use serde_json::Value;

use crate::status::Problem;

/// The rules of one version of a definition, compiled once. Transition rules, those with `oldSelf`, are part of them.
#[derive(Debug)]
pub(crate) struct Rules(CompiledSchema);

impl Rules {
    /// The rules in an `openAPIV3Schema`.
    pub(crate) fn of(schema: &Value) -> Self {
        Self(compile_schema(schema))
    }

    /// The rules that do not hold for an object, which replaces `old` if there is one. A rule that cannot be evaluated does not hold.
    pub(crate) fn check(&self, object: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
        let Err(errors) = validate_compiled(&self.0, object, old) else {
            return;
        };
        for error in errors.into_vec() {
            let kind = Value::from("object");
            let value = error
                .field_path
                .split('.')
                .try_fold(object, |value, name| value.get(name))
                .filter(|value| !value.is_object() && !value.is_array());
            let field = if error.field_path.is_empty() {
                "<nil>".to_owned()
            } else {
                error.field_path.clone()
            };
            problems.push(Problem::invalid(field, value.unwrap_or(&kind), &error.message));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(object: &Value, old: Option<&Value>) -> Vec<String> {
        let schema = json!({"type": "object",
            "x-kubernetes-validations": [{"rule": "has(self.status) || !has(oldSelf.status)", "message": "status stays"}],
            "properties": {
                "status": {"type": "object"},
                "spec": {"type": "object",
                "x-kubernetes-validations": [
                    {"rule": "self.min <= self.max", "message": "min is above max"},
                    {"rule": "self.name == oldSelf.name", "message": "the name stays"},
                    {"rule": "['a', 'b'].indexOf(self.name) >= 0", "message": "the name is unknown"}],
                "properties": {
                    "min": {"type": "integer"}, "max": {"type": "integer", "default": 9}, "name": {"type": "string"}}}}});
        let mut problems = Vec::new();
        Rules::of(&schema).check(object, old, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    /// Broken, a controller's tests pass here on objects a cluster refuses.
    #[test]
    fn objects_that_break_a_rule_are_refused_with_its_words() {
        let good = json!({"spec": {"min": 1, "name": "a"}, "status": {}});
        assert!(texts(&good, None).is_empty());
        assert!(texts(&good, Some(&good)).is_empty());
        let bad = json!({"spec": {"min": 10, "name": "a"}});
        let told = texts(&bad, None);
        assert_eq!(told, [r#"spec: Invalid value: "object": min is above max"#]);
        let unknown = json!({"spec": {"min": 1, "name": "c"}});
        assert_eq!(texts(&unknown, None).len(), 1);
    }

    #[test]
    fn rules_about_changes_see_the_object_before() {
        let old = json!({"spec": {"min": 1, "name": "a"}, "status": {}});
        let new = json!({"spec": {"min": 1, "name": "b"}});
        let told = texts(&new, Some(&old));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told.iter().any(|text| text.contains("the name stays")),
            "{told:?}"
        );
        assert!(told.iter().any(|text| text.contains("status stays")), "{told:?}");
        assert!(
            texts(&new, None).is_empty(),
            "there is no change to hold against them"
        );
    }
}
