//! Tests that a machine may not be able to run: skipped with a word, or failed when `CATENA_REQUIRE` asks for them.

/// Says that the test which calls it is skipped for want of `thing`; return from the test after it.
///
/// # Panics
/// When `CATENA_REQUIRE` is `all`, or a list (`a,b`) that names `thing`.
#[track_caller]
pub(crate) fn skip(thing: &str, why: &str) {
    let required = std::env::var("CATENA_REQUIRE").unwrap_or_default();
    assert!(
        !is_required(&required, thing),
        "CATENA_REQUIRE={required} asks for {thing}, and there is none: {why}"
    );
    eprintln!("skipped: no {thing}: {why} (CATENA_REQUIRE={thing} makes this a failure)");
}

fn is_required(list: &str, thing: &str) -> bool {
    list.split(',')
        .map(str::trim)
        .any(|word| word == "all" || word == thing)
}

#[cfg(test)]
mod tests {
    use super::is_required;

    #[test]
    fn a_list_asks_for_what_it_names_and_all_for_everything() {
        for list in ["all", "x", "a,x", "a, x ,b"] {
            assert!(is_required(list, "x"), "{list}");
        }
        for list in ["", "a", "a,b", "xy"] {
            assert!(!is_required(list, "x"), "{list}");
        }
    }
}
