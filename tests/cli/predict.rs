//! `predict`, with a table as the trainer leaves it and no device.

use std::fs;

use forerun::change_vector::ChangeKind;
use forerun::geometry::{BlockIndex, Epoch};
use forerun::prediction::{Horizon, Prediction, Probability};
use forerun::prediction_table::TableWriter;

use super::fake_server;
use super::rig::{Rig, golden, run};

/// As the rig's volumes have it.
const UUID: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

fn publish(rig: &Rig, name: &str, predictions: &[(u32, ChangeKind, f32)]) {
    let files = rig.volume(name);
    fs::create_dir_all(files.run_dir()).unwrap();
    let predictions: Vec<Prediction> = predictions
        .iter()
        .map(|(block, kind, probability)| Prediction {
            block: BlockIndex(*block),
            kind: (*kind).into(),
            probability: Probability::new(*probability).unwrap(),
        })
        .collect();
    let mut writer = TableWriter::create(&files.predictions(), UUID).unwrap();
    writer.publish("lstm", Epoch(41), Horizon::new(2).unwrap(), &predictions).unwrap();
}

fn publish_some(rig: &Rig, name: &str) {
    use ChangeKind::{Added, Deleted, Modified};
    let mut predictions: Vec<(u32, ChangeKind, f32)> =
        (1_000..1_016).map(|block| (block, Added, 0.93)).collect();
    predictions.extend([(8, Modified, 0.97), (9, Modified, 0.6), (4_000, Deleted, 0.5), (5, Modified, 0.49)]);
    publish(rig, name, &predictions);
}

#[test]
fn without_a_device_there_are_ranges_and_no_names() {
    let rig = Rig::new();
    rig.configure("data");
    publish_some(&rig, "data");
    let text = run(&mut rig.forerun("predict data")).ok();
    let (head, rest) = text.split_once('\n').unwrap();
    assert!(head.starts_with("predictions for 2 epochs after epoch 41, by lstm, published "), "{head}");
    golden("predict.txt", rest);
    let without = run(&mut rig.forerun("predict data --no-files --limit 2")).ok();
    golden("predict-no-files.txt", without.split_once('\n').unwrap().1);

    let json = run(&mut rig.forerun("predict data --json")).json();
    assert_eq!((&json["volume"], &json["from_probability"]), (&"data".into(), &0.5.into()));
    assert_eq!((&json["table"]["epoch"], &json["table"]["horizon_epochs"]), (&41.into(), &2.into()));
    assert_eq!((&json["table"]["model"], &json["file_system"]), (&"lstm".into(), &serde_json::Value::Null));
    assert_eq!(json["not_named"], "the volume is not running");
    assert_eq!(json["ranges"].as_array().unwrap().len(), 4);
    assert_eq!(
        json["ranges"][1],
        serde_json::json!({
            "probability": 0.93, "kind": "added", "offset_bytes": 65_536_000, "length_bytes": 1_048_576,
            "contents": [],
        })
    );
    let json = run(&mut rig.forerun("predict data --json --no-files --from-probability 0.95")).json();
    assert_eq!((json["ranges"].as_array().unwrap().len(), &json["not_named"]), (1, &serde_json::Value::Null));
    let json = run(&mut rig.forerun("predict data --json --limit 1")).json();
    assert_eq!((json["ranges"].as_array().unwrap().len(), &json["left_out"]), (1, &3.into()));
}

#[test]
fn nothing_to_tell_is_told() {
    let rig = Rig::new();
    rig.configure("data");
    publish_some(&rig, "data");
    let text = run(&mut rig.forerun("predict data --from-probability 0.99")).ok();
    assert!(text.ends_with("from p = 0.99: nothing as probable as that\n"), "{text}");
}

#[test]
fn what_is_wrong_is_said() {
    let rig = Rig::new();
    run(&mut rig.forerun("predict none")).failed(3, "there is no volume \"none\" here");
    rig.configure("data");
    run(&mut rig.forerun("predict data")).failed(4, "and there is no prediction table of it");
    run(&mut rig.forerun("predict data --from-probability x")).failed(2, "invalid float");
    publish_some(&rig, "data");
    for value in ["1.5", "-0.1", "nan"] {
        let words = format!("predict data --from-probability {value}");
        run(&mut rig.forerun(&words)).failed(2, "the range is 0 to 1");
    }
    fs::write(rig.volume("data").predictions(), "no table").unwrap();
    run(&mut rig.forerun("predict data")).failed(1, "the predictions for volume data cannot be read");
}

#[test]
fn a_table_of_another_volume_is_refused() {
    let rig = Rig::new();
    rig.configure("data");
    let files = rig.volume("data");
    fs::create_dir_all(files.run_dir()).unwrap();
    drop(TableWriter::create(&files.predictions(), [9; 16]).unwrap());
    run(&mut rig.forerun("predict data")).failed(1, "the prediction table is another volume's");
}

#[test]
fn a_picture_has_the_past_and_what_is_expected() {
    let rig = Rig::new();
    fake_server::serve(&rig, "data");
    publish_some(&rig, "data");
    let page = run(&mut rig.forerun("predict data --no-files")).ok();
    let output = rig.forerun("predict data --no-files --plot data.svg").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "the picture is in data.svg\n");
    // But for how long ago it was.
    let table = |page: &str| page.split_once('\n').unwrap().1.to_owned();
    assert_eq!(table(&String::from_utf8(output.stdout).unwrap()), table(&page), "the page is as without");
    let svg = fs::read_to_string(rig.path().join("data.svg")).unwrap();
    for words in [
        ">past: epochs 1 to 42, 2026-11-23 09:46:00 to 2026-11-23 10:28:00 (UTC)<",
        ">expected: within 2 epochs after epoch 41, by lstm, published 20",
        ">2026-11-23<",
        ">42<",
    ] {
        assert!(svg.contains(words), "{words} is not in {svg}");
    }
    let output = rig.forerun("predict data --json --plot two.png --epochs 2").output().unwrap();
    serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
    let png = fs::read(rig.path().join("two.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"), "{} bytes", png.len());
    assert!(rig.forerun("predict data --plot two.svg --epochs 2").output().unwrap().status.success());
    let svg = fs::read_to_string(rig.path().join("two.svg")).unwrap();
    assert!(svg.contains(">past: epochs 41 to 42, "), "{svg}");
}

#[test]
fn a_picture_of_a_volume_that_is_not_running_has_no_past() {
    let rig = Rig::new();
    rig.configure("data");
    publish_some(&rig, "data");
    assert!(rig.forerun("predict data --plot data.svg").output().unwrap().status.success());
    let svg = fs::read_to_string(rig.path().join("data.svg")).unwrap();
    assert!(svg.contains("no past epochs: the volume is not running"), "{svg}");
    run(&mut rig.forerun("predict data --plot not/there.svg"))
        .failed(1, "the picture not/there.svg cannot be written: No such file or directory");
}

#[test]
fn a_picture_ends_at_the_last_epoch_that_is_told() {
    let rig = Rig::new();
    fake_server::serve(&rig, "late");
    publish_some(&rig, "late");
    let output = rig.forerun("predict late --no-files --plot late.svg").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let late = "epochs 40 to 42 are not in the picture: nothing came of them for 10 s\n";
    assert_eq!(said, format!("{late}the picture is in late.svg\n"));
    let svg = fs::read_to_string(rig.path().join("late.svg")).unwrap();
    assert!(svg.contains(">past: epochs 1 to 39, "), "{svg}");
}
