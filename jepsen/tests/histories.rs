//! The checker against recorded histories whose verdicts are known (see `histories/NOTICE.md`).
#![allow(
    clippy::disallowed_methods,
    reason = "the test reads the recorded files"
)]

use std::path::{Path, PathBuf};

use catena_jepsen::check::model::Model;
use catena_jepsen::check::report::{Report, Verdict};
use catena_jepsen::check::{Options, run_file};

/// All recorded histories together need about a thousandth of this.
const STEPS_MAX: u64 = 1_000_000;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/histories")
        .join(name)
}

fn check(path: &Path, model: Model) -> Report {
    let text = std::fs::read_to_string(path).expect("the history is in the repository");
    let mut options = Options::default();
    options.limits.steps_max = STEPS_MAX;
    run_file(&text, model, &options).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn assert_verdict(path: &Path, model: Model, verdict: Verdict) {
    let report = check(path, model);
    assert_eq!(
        report.verdict(),
        verdict,
        "{}:\n{}",
        path.display(),
        report.to_text()
    );
    for violation in &report.violations {
        assert!(
            violation.is_least,
            "{}:\n{}",
            path.display(),
            report.to_text()
        );
    }
}

#[test]
fn etcd_registers_get_their_known_verdicts() {
    let folder = folder("jepsen-etcd");
    let verdicts = std::fs::read_to_string(folder.join("VERDICTS.tsv")).expect("the table");
    let mut checked = 0;
    for line in verdicts.lines() {
        let (file, verdict) = line.split_once('\t').expect("two columns");
        let verdict = match verdict {
            "linearizable" => Verdict::Linearizable,
            "not" => Verdict::NotLinearizable,
            other => panic!("the verdict {other} is not known"),
        };
        assert_verdict(&folder.join(file), Model::Register, verdict);
        // The largest model has the register in it, and must agree.
        assert_verdict(&folder.join(file), Model::Catena, verdict);
        checked += 1;
    }
    assert_eq!(checked, 52);
}

#[test]
fn string_maps_get_their_known_verdicts() {
    for (file, verdict) in [
        ("c01-ok.txt", Verdict::Linearizable),
        ("c01-bad.txt", Verdict::NotLinearizable),
        ("c10-ok.txt", Verdict::Linearizable),
        ("c10-bad.txt", Verdict::NotLinearizable),
    ] {
        assert_verdict(&folder("kv").join(file), Model::KvAppend, verdict);
    }
}

#[test]
fn a_violation_is_shown_as_the_few_operations_that_matter() {
    let report = check(&folder("kv").join("c01-bad.txt"), Model::KvAppend);
    let expected = r#"not linearizable
  model kv-append, 8 keys, 38 operations ok, 0 failed, 0 unknown

key "7": these 2 of 5 operations contradict each other, whatever the others did

  p0  append "x 0 0 y"  ok         ├─┤          (does not help, even later or never)
  p0  append "x 0 3 y"  ok             ├─┤
  p0  get               "x 0 0 y"          ├─┤  <- cannot be explained: the key could only hold "x 0 0 yx 0 3 y"
"#;
    assert_eq!(report.to_text(), expected);
    let json = report.to_json();
    assert_eq!(json["verdict"], "not linearizable");
    assert_eq!(json["violations"][0]["key"], "7");
    assert_eq!(json["violations"][0]["window"][2]["role"], "unexplained");
    assert_eq!(json["violations"][0]["could_hold"][0], "x 0 0 yx 0 3 y");
}

#[test]
fn a_model_that_lacks_an_operation_says_so() {
    let path = folder("kv").join("c01-ok.txt");
    let text = std::fs::read_to_string(path).expect("the history is in the repository");
    let error = run_file(&text, Model::Register, &Options::default()).expect_err("it appends");
    assert!(
        error
            .to_string()
            .contains("`register` has no operation `append"),
        "{error}"
    );
}

/// The first block of the page that is fenced as `kind` and begins with `start`.
fn documented(kind: &str, start: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/HISTORY_FORMAT.md");
    let page = std::fs::read_to_string(page).expect("the page is in the repository");
    let from = format!("```{kind}\n{start}");
    let (_, block) = page.split_once(&from).expect("the page has the block");
    let (block, _) = block.split_once("```").expect("the block ends");
    format!("{start}{block}")
}

#[test]
fn the_documented_example_is_read_as_documented() {
    let text = documented("json", "{\"type\":\"note\"");
    let report = run_file(&text, Model::Catena, &Options::default()).expect("well formed");
    assert_eq!(report.verdict(), Verdict::Linearizable);
    assert_eq!((report.outcomes.ok, report.outcomes.unknown), (2, 1));
}

#[test]
fn the_documented_report_is_what_the_checker_prints() {
    let report = check(&folder("jepsen-etcd").join("etcd_036.log"), Model::Register);
    assert_eq!(documented("text", "not linearizable"), report.to_text());
}
