//! The search held to what is known by construction, and to a checker that tries everything.

use proptest::prelude::*;

use super::generate::{Shape, brute_force, falsify, linearizable, with_outcome};
use super::history::History;
use super::model::Model;
use super::operation::{Answer, Outcome};
use super::report::{Role, Verdict};
use super::{Exhausted, Limits, Options, check_history, json_lines};

/// Little enough that a search which explodes shows as undecided, at once.
const OPTIONS: Options = Options {
    limits: Limits {
        steps_max: 1_000_000,
        memory_bytes_max: 1 << 28,
    },
    shrink_steps_max: 1_000_000,
    violations_shown_max: 3,
    format: None,
};

fn verdict(model: Model, history: &History) -> Verdict {
    check_history(history, model, &OPTIONS)
        .expect("the model knows what it generates")
        .verdict()
}

fn any_model() -> impl Strategy<Value = Model> {
    proptest::sample::select(&Model::ALL[..])
}

fn shape(
    operations: std::ops::Range<u64>,
    clients: std::ops::Range<u64>,
) -> impl Strategy<Value = Shape> {
    (
        any_model(),
        clients,
        operations,
        0..5u64,
        10..70u64,
        proptest::sample::select(&[0, 10, 30][..]),
        proptest::sample::select(&[0, 50, 100][..]),
    )
        .prop_map(
            |(model, clients, operations, values, reads_percent, unknown_percent, versions)| {
                Shape {
                    model,
                    clients,
                    operations,
                    values,
                    reads_percent,
                    unknown_percent,
                    versions_percent: if model == Model::Catena { versions } else { 0 },
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_a_correct_key_did_is_linearizable(seed: u64, shape in shape(1..150, 1..9)) {
        let history = linearizable(seed, shape);
        let found = verdict(shape.model, &history);
        // Increments, undelimited appends and many unknown writes together can be too much to
        // search; they may be undecided, and never refused.
        let is_right = found == Verdict::Linearizable
            || (shape.model == Model::Catena && found == Verdict::Undecided);
        prop_assert!(is_right, "{:?}\n{}", found, json_lines::to_json_lines(&history));
    }

    #[test]
    fn our_own_format_loses_nothing(seed: u64, shape in shape(1..60, 1..9)) {
        let history = linearizable(seed, shape);
        let again = json_lines::parse(&json_lines::to_json_lines(&history)).expect("our own lines");
        prop_assert_eq!(again.operations(), history.operations());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn falsified_answers_get_the_verdict_of_trying_everything(
        seed: u64,
        shape in shape(2..8, 1..5),
    ) {
        let history = linearizable(seed, shape);
        prop_assert!(brute_force(shape.model, &history), "the reference accepts its own run");
        let Some(false_history) = falsify(&history, seed) else { return Ok(()) };
        let expected = if brute_force(shape.model, &false_history) {
            Verdict::Linearizable
        } else {
            Verdict::NotLinearizable
        };
        prop_assert_eq!(
            verdict(shape.model, &false_history),
            expected,
            "{}",
            json_lines::to_json_lines(&false_history)
        );
    }

    #[test]
    fn the_window_is_a_contradiction_by_itself(seed: u64, shape in shape(4..9, 2..5)) {
        let Some(history) = falsify(&linearizable(seed, shape), seed) else { return Ok(()) };
        let report = check_history(&history, shape.model, &OPTIONS).expect("known");
        let Some(violation) = report.violations.first() else { return Ok(()) };
        let needed: Vec<_> = violation
            .rows
            .iter()
            .filter(|row| row.role != Role::Optional)
            .map(|row| row.operation.call)
            .collect();
        let loosened = with_outcome(&history, |operation| {
            match &operation.outcome {
                outcome if needed.contains(&operation.call) => outcome.clone(),
                // It was told that it changed nothing, and it is not doubted that this is true.
                Outcome::Failed
                | Outcome::Ok(
                    Answer::Mismatch { .. } | Answer::Deleted { existed: Some(false), .. },
                ) => Outcome::Failed,
                Outcome::Ok(_) | Outcome::Unknown => Outcome::Unknown,
            }
        });
        prop_assert!(
            !brute_force(shape.model, &loosened),
            "{}\n{}",
            report.to_text(),
            json_lines::to_json_lines(&history)
        );
    }
}

/// A checker that accepts everything would pass most tests above, so count what is refused.
#[test]
fn most_falsified_reads_are_refused() {
    let mut refused = 0;
    for seed in 0..200 {
        let shape = Shape {
            model: Model::KvAppend,
            clients: 4,
            operations: 60,
            values: 0,
            reads_percent: 40,
            unknown_percent: 5,
            versions_percent: 0,
        };
        let history = falsify(&linearizable(seed, shape), seed).expect("there are reads");
        refused += u32::from(verdict(shape.model, &history) == Verdict::NotLinearizable);
    }
    assert!(refused > 150, "{refused} of 200");
}

#[test]
fn fifty_clients_on_one_key_need_little_search() {
    for (model, values) in [
        (Model::KvAppend, 0),
        (Model::Register, 0),
        (Model::Catena, 0),
    ] {
        for seed in 0..4 {
            let shape = Shape {
                model,
                clients: 50,
                operations: 3000,
                values,
                reads_percent: 50,
                unknown_percent: 2,
                versions_percent: 100,
            };
            let history = linearizable(seed, shape);
            assert_eq!(
                verdict(model, &history),
                Verdict::Linearizable,
                "{model} {seed}"
            );
        }
    }
}

#[test]
fn what_was_not_searched_to_the_end_is_undecided() {
    let shape = Shape {
        model: Model::Register,
        clients: 20,
        operations: 500,
        values: 3,
        reads_percent: 50,
        unknown_percent: 10,
        versions_percent: 0,
    };
    let history = linearizable(1, shape);
    let limits = |steps_max, memory_bytes_max| Options {
        limits: Limits {
            steps_max,
            memory_bytes_max,
        },
        ..OPTIONS
    };
    for (options, exhausted) in [
        (limits(600, 1 << 28), Exhausted::Steps),
        (limits(1_000_000, 600), Exhausted::Memory),
    ] {
        let report = check_history(&history, Model::Register, &options).expect("known");
        assert_eq!(report.verdict(), Verdict::Undecided);
        assert_eq!(report.undecided[0].exhausted, exhausted);
        assert!(
            report.to_text().starts_with("undecided\n"),
            "{}",
            report.to_text()
        );
    }
}

/// Found by breaking the rule *purpose* on purpose: random histories did not reach it.
#[test]
fn an_unknown_write_may_matter_only_by_what_an_append_makes_of_it() {
    let history = json_lines::parse(
        r#"{"type":"invoke","process":0,"op":"put","key":"k","value":"a"}
           {"type":"ok","process":0}
           {"type":"invoke","process":1,"op":"cas","key":"k","expect_value":"a","value":"z"}
           {"type":"info","process":1}
           {"type":"invoke","process":0,"op":"append","key":"k","value":"b"}
           {"type":"ok","process":0}
           {"type":"invoke","process":0,"op":"cas","key":"k","expect_value":"ab","value":"q"}
           {"type":"ok","process":0,"matched":false}"#,
    )
    .expect("well formed");
    assert!(brute_force(Model::Catena, &history));
    assert_eq!(verdict(Model::Catena, &history), Verdict::Linearizable);
}

/// Two operations of process 0, one after the other; the second's answer decides.
fn after(first: &str, end: &str, second: &str, answer: &str) -> Verdict {
    let text = format!(
        r#"{{"type":"invoke","process":0,"key":"k",{first}}}
           {{"process":0,{end}}}
           {{"type":"invoke","process":0,"key":"k",{second}}}
           {{"type":"ok","process":0,{answer}}}"#
    );
    let history = json_lines::parse(&text).expect("well formed");
    let found = verdict(Model::Catena, &history);
    assert_eq!(
        found == Verdict::Linearizable,
        brute_force(Model::Catena, &history),
        "{text}"
    );
    found
}

#[test]
fn each_outcome_means_what_it_says() {
    let put = r#""op":"put","value":"x""#;
    let get = r#""op":"get""#;
    for (end, answer, expected) in [
        (r#""type":"ok""#, r#""value":"x""#, Verdict::Linearizable),
        (
            r#""type":"ok""#,
            r#""value":null"#,
            Verdict::NotLinearizable,
        ),
        (
            r#""type":"fail""#,
            r#""value":"x""#,
            Verdict::NotLinearizable,
        ),
        (r#""type":"fail""#, r#""value":null"#, Verdict::Linearizable),
        (r#""type":"info""#, r#""value":"x""#, Verdict::Linearizable),
        (r#""type":"info""#, r#""value":null"#, Verdict::Linearizable),
    ] {
        assert_eq!(after(put, end, get, answer), expected, "{end} {answer}");
    }
}

#[test]
fn versions_grow_with_each_write_told_or_not() {
    let put = r#""op":"put","value":"x""#;
    let told = r#""type":"ok","version":7"#;
    for (second, answer, expected) in [
        (put, r#""version":8"#, Verdict::Linearizable),
        (put, r#""version":7"#, Verdict::NotLinearizable),
        (
            r#""op":"get""#,
            r#""value":"x","version":7"#,
            Verdict::Linearizable,
        ),
        (
            r#""op":"get""#,
            r#""value":"x","version":8"#,
            Verdict::NotLinearizable,
        ),
    ] {
        assert_eq!(
            after(put, told, second, answer),
            expected,
            "{second} {answer}"
        );
    }
}
