//! Replaces `$(NAME)` by the variable's value, the way Kubernetes does in environment, command and arguments.

/// Expands `text`. A name `value` does not know stays as written, `$$` is one `$`, and nothing is expanded twice.
pub(super) fn expand(text: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            result.push('$');
            rest = escaped;
        } else if let Some((name, behind)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(value) => result.push_str(&value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = behind;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".to_owned()),
            "B" => Some("b b".to_owned()),
            "EMPTY" => Some(String::new()),
            "DOLLAR" => Some("$(A)".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced_as_kubernetes_documents_or_commands_break() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "a"),
            ("x$(A)y$(B)z", "xayb bz"),
            ("$(A)$(A)", "aa"),
            ("$(EMPTY)", ""),
            ("$(UNKNOWN)", "$(UNKNOWN)"),
            ("$(DOLLAR)", "$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$$(A)"),
            ("$", "$"),
            ("$$", "$"),
            ("a$", "a$"),
            ("$A", "$A"),
            ("${A}", "${A}"),
            ("$(A", "$(A"),
            ("$(", "$("),
            ("$()", "$()"),
            ("$)", "$)"),
            ("$(A)$(", "a$("),
            ("$((A))", "$((A))"),
            ("`$(A)`", "`a`"),
            ("ü$(A)ü", "üaü"),
        ] {
            assert_eq!(expand(text, &known), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_is_itself(text in "[^$]*") {
            prop_assert_eq!(expand(&text, &known), text);
        }

        #[test]
        fn any_text_is_expanded_without_a_panic(text in "[$()A-C ü]{0,30}") {
            let _ = expand(&text, &known);
        }
    }
}
