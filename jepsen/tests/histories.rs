//! The checker against recorded histories whose verdicts are known (see `histories/NOTICE.md`).

use std::path::{Path, PathBuf};

use catena_jepsen::check::model::Model;
use catena_jepsen::check::report::{Report, Verdict};
use catena_jepsen::check::{Options, run_file};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/histories")
        .join(name)
}

fn check(path: &Path, model: Model) -> Report {
    let text = std::fs::read_to_string(path).expect("the history is in the repository");
    run_file(&text, model, &Options::default())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn assert_verdict(path: &Path, model: Model, verdict: Verdict) {
    let start = std::time::Instant::now();
    let report = check(path, model);
    eprintln!("{} {} {:?}", path.display(), report.steps, start.elapsed());
    assert_eq!(
        report.verdict(),
        verdict,
        "{}:\n{}",
        path.display(),
        report.to_text()
    );
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
