//! Lines that never change, in the requested proportions, and a truth that a naive recount confirms.

use super::*;
use std::collections::{BTreeMap, HashMap, HashSet};

fn settings() -> Settings {
    Settings {
        amount: Amount::Lines(1_000),
        seed: 42,
        rate: MISSION_RATE,
        ads: MISSION_ADS,
        duplicates: 0.0,
        exact_copies: false,
        late: 0.0,
        malformed: 0.0,
        invalid: 0.0,
        click_ids: 0.0,
        out_of_order_ms: 2_000,
        start_ms: parse_rfc3339(DEFAULT_START.as_bytes()).expect("a time"),
        format: Format::Ndjson,
    }
}

/// More than ten minutes of event time with lines of every kind.
fn mixed(format: Format) -> Settings {
    Settings {
        amount: Amount::Lines(60_000),
        rate: 40.0,
        ads: 500,
        duplicates: 0.05,
        exact_copies: false,
        late: 0.02,
        malformed: 0.01,
        invalid: 0.01,
        click_ids: 0.3,
        format,
        ..settings()
    }
}

fn generate(settings: Settings) -> (Vec<u8>, Vec<Line>) {
    let mut generator = Generator::new(settings).expect("valid settings");
    let (mut text, mut lines) = (Vec::new(), Vec::new());
    while generator.next_line(&mut text) {
        lines.push(*generator.last());
    }
    (text, lines)
}

fn report_of(lines: &[Line]) -> (Report, String) {
    let mut counts = Vec::new();
    let mut truth = Truth::new(&mut counts).expect("memory");
    for line in lines {
        truth.observe(line).expect("memory");
    }
    let report = truth.finish().expect("memory");
    (report, String::from_utf8(counts).expect("text"))
}

/// `--clicks` is the number that an exact counter counts, whatever lines are added.
#[test]
fn as_many_clicks_as_asked_for_are_to_be_counted() {
    let check = |settings: Settings| {
        let (_, lines) = generate(settings.clone());
        let (report, _) = report_of(&lines);
        assert_eq!(report.counted, 20_000, "{settings:?}");
        assert_eq!(lines.len() as u64, report.read);
        report
    };
    let amount = Amount::Clicks(20_000);
    assert_eq!(check(Settings { amount, ..settings() }).read, 20_000);
    for format in [Format::Ndjson, Format::Csv] {
        let report = check(Settings { amount, rate: 10.0, ..mixed(format) });
        assert!(report.duplicate > 500 && report.late > 50 && report.malformed > 100 && report.invalid > 100);
    }
    check(Settings { amount, duplicates: 0.3, late: 0.3, ..mixed(Format::Ndjson) });
    let none = Settings { amount, duplicates: 0.5, late: 0.5, ..settings() };
    let refused = Generator::new(none).expect_err("no line is left for a click");
    assert!(refused.to_string().contains("--lines"), "{refused}");
}

/// FNV-1a, 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn the_first_thousand_lines_never_change() {
    let check = |settings: Settings, expected: u64| assert_eq!(hash(&generate(settings).0), expected);
    check(settings(), 7_982_736_869_722_204_961);
    check(Settings { amount: Amount::Lines(1_000), ..mixed(Format::Ndjson) }, 3_818_346_992_376_283_254);
    check(Settings { amount: Amount::Lines(1_000), ..mixed(Format::Csv) }, 12_057_806_503_224_324_800);
    assert_ne!(generate(settings()).0, generate(Settings { seed: 43, ..settings() }).0);
}

#[test]
fn a_longer_run_begins_like_a_shorter_one() {
    let long = generate(Settings { amount: Amount::Lines(2_000), ..settings() }).0;
    assert!(long.starts_with(&generate(settings()).0));
}

#[test]
fn lines_are_of_the_size_and_the_mix_of_real_ones() {
    let (text, lines) = generate(Settings { amount: Amount::Lines(100_000), ..settings() });
    let clicks = lines.iter().map(|line| match line {
        Line::Click(click) => *click,
        other => panic!("{other:?}"),
    });
    let clicks: Vec<Click> = clicks.collect();
    let number = |of: &dyn Fn(&Click) -> bool| clicks.iter().filter(|click| of(click)).count();
    let mut by_ad: HashMap<u64, usize> = HashMap::new();
    for click in &clicks {
        assert!((1..=MISSION_ADS).contains(&click.ad_id));
        *by_ad.entry(click.ad_id).or_default() += 1;
    }
    // Within the requested disorder.
    let start = settings().start_ms;
    let mut largest = start;
    for click in &clicks {
        largest = largest.max(click.event_time_ms);
        assert!(click.event_time_ms >= start && largest - click.event_time_ms <= 2_000);
    }
    let found = [
        ("bytes: 112 a line", text.len()),
        ("24 % from the US", number(&|click| click.country().as_str() == "US")),
        ("1 % from nowhere", number(&|click| click.country().as_str() == "ZZ")),
        ("20 % by IPv6", number(&|click| click.ip >> 32 != 0xffff)),
        ("10 % for the first ad", by_ad.values().copied().max().unwrap_or(0)),
        ("different ads: a long tail", by_ad.len()),
        ("ms: 100,000 lines at 11,574 a second, and the disorder", (largest - start) as usize),
    ];
    assert_eq!(found.map(|(_, number)| number), [11_203_998, 24_088, 965, 19_810, 9_809, 30_868, 10_618], "{found:?}");
}

#[test]
fn each_kind_has_the_fraction_asked_for() {
    let check = |format: Format, expected: [u64; 5]| {
        let (_, lines) = generate(mixed(format));
        let (found, _) = report_of(&lines);
        let Report { duplicate, conflicting_duplicates, malformed, invalid, late, .. } = found;
        assert_eq!([duplicate, conflicting_duplicates, malformed, invalid, late], expected, "{format:?}");
    };
    // Of 60,000 lines 5 %, an eighth of that, 1 %, 1 %, and less than 2 %: the first late line is possible after 365 of
    // 1,500 seconds, and until 2,165 s the range of late times is limited.
    check(Format::Ndjson, [2_987, 354, 588, 604, 277]);
    check(Format::Csv, [2_982, 361, 578, 608, 281]);
}

#[test]
fn exact_copies_differ_in_nothing() {
    let (_, lines) = generate(Settings { exact_copies: true, ..mixed(Format::Ndjson) });
    let (found, _) = report_of(&lines);
    assert!(found.duplicate > 2_000 && found.conflicting_duplicates == 0, "{found:?}");
}

/// A literal recount from the text: it parses every line again and keeps every identity forever.
#[derive(Default)]
struct Naive {
    report: Report,
    held: HashMap<String, String>,
    counts: BTreeMap<(i64, u64, String), u64>,
    times: Vec<i64>,
    largest: Option<i64>,
    run: Vec<i64>,
}

impl Naive {
    fn click(&mut self, time: i64, ad: u64, who: &str, country: &str) {
        let watermark = self.largest.map(|largest| largest - 5_000);
        let end = time.div_euclid(60_000) * 60_000 + 60_000;
        let identity = format!("{time} {ad} {who}");
        let live = watermark.is_none_or(|watermark| watermark < end + 600_000);
        if let (true, Some(first)) = (live, self.held.get(&identity)) {
            self.report.duplicate += 1;
            self.report.conflicting_duplicates += u64::from(first != country);
        } else if watermark.is_some_and(|watermark| end + 300_000 <= watermark) {
            self.report.late += 1;
        } else {
            self.report.counted += 1;
            self.held.insert(identity, country.to_owned());
            *self.counts.entry((end - 60_000, ad, country.to_owned())).or_default() += 1;
        }
        self.times.push(time);
        match self.largest {
            None if self.times.len() >= 16 => self.largest = self.times.iter().min().copied(),
            None => {}
            Some(largest) if time > largest + 600_000 => {
                self.run.push(time);
                if self.run.len() == 16 {
                    self.largest = self.run.drain(..).min();
                }
            }
            Some(largest) => {
                self.run.clear();
                self.largest = Some(largest.max(time));
            }
        }
    }

    fn json(&mut self, line: &[u8]) {
        self.report.read += 1;
        let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(line) else {
            self.report.malformed += 1;
            return;
        };
        let text = |key: &str| object.get(key).and_then(|value| value.as_str()).unwrap_or_default();
        let time = object.get("click_timestamp").and_then(|value| value.as_i64());
        let ad = object.get("ad_id").and_then(|value| value.as_u64());
        let ip = adtally_model::ip::parse(text("ip").as_bytes());
        match (time, ad, ip) {
            (Some(time), Some(ad), Some(ip)) if time > 946_684_800_000 && !text("user_id").is_empty() => {
                let who = match text("click_id") {
                    "" => format!("{} {ip:x}", text("user_id")),
                    click_id => click_id.to_owned(),
                };
                self.click(time, ad, &who, known_country(text("country")));
            }
            _ => self.report.invalid += 1,
        }
    }

    fn csv(&mut self, line: &[u8]) {
        self.report.read += 1;
        let columns: Vec<_> = std::str::from_utf8(line).unwrap_or_default().split(',').collect();
        let (&[time, ad, user, ip, country, click_id], false) = (&columns[..], line.contains(&b'"')) else {
            self.report.malformed += 1;
            return;
        };
        let leading_zero = ad.starts_with('0') && ad.len() > 1;
        let parsed = (time.parse().ok(), ad.parse().ok(), adtally_model::ip::parse(ip.as_bytes()));
        match parsed {
            (Some(time), Some(ad), Some(ip)) if !user.is_empty() && !leading_zero => {
                let who = if click_id.is_empty() { format!("{user} {ip:x}") } else { click_id.to_owned() };
                self.click(time, ad, &who, known_country(country));
            }
            _ => self.report.invalid += 1,
        }
    }
}

fn known_country(text: &str) -> &'static str {
    let upper = text.to_uppercase();
    adtally_model::Country::all().map(|country| country.as_str()).find(|code| *code == upper).unwrap_or("ZZ")
}

#[test]
fn the_truth_equals_a_naive_recount() {
    let seeds = [1, 2, 3];
    for (format, seed) in [Format::Ndjson, Format::Csv].into_iter().flat_map(|format| seeds.map(|seed| (format, seed)))
    {
        let out_of_order_ms = [0, 2_000, 120_000][seed as usize - 1];
        let (text, lines) = generate(Settings { seed, out_of_order_ms, ..mixed(format) });
        let (mut truth, counts) = report_of(&lines);
        let mut naive = Naive::default();
        let skipped = usize::from(format == Format::Csv);
        for line in text.strip_suffix(b"\n").expect("ends").split(|&byte| byte == b'\n').skip(skipped) {
            match format {
                Format::Ndjson => naive.json(line),
                Format::Csv => naive.csv(line),
            }
        }
        let mut rows = String::from("minute,ad_id,country,clicks\n");
        let mut by_minute: BTreeMap<i64, u64> = BTreeMap::new();
        let mut by_ad: BTreeMap<u64, u64> = BTreeMap::new();
        for ((minute, ad, country), clicks) in &naive.counts {
            rows += &format!("{},{ad},{country},{clicks}\n", adtally_model::time::rfc3339(*minute));
            *by_minute.entry(*minute).or_default() += clicks;
            *by_ad.entry(*ad).or_default() += clicks;
        }
        assert_eq!(counts, rows, "{format:?} {seed}");
        let minutes: Vec<_> = truth.minutes.drain(..).map(|row| (row.minute, row.clicks)).collect();
        let expected = by_minute.iter().map(|(minute, clicks)| (adtally_model::time::rfc3339(*minute), *clicks));
        assert_eq!(minutes, expected.collect::<Vec<_>>());
        let mut ads: Vec<_> = by_ad.into_iter().collect();
        ads.sort_by_key(|(ad, clicks)| (std::cmp::Reverse(*clicks), *ad));
        let top: Vec<_> = truth.ads.drain(..).map(|row| (row.ad_id, row.clicks)).collect();
        assert_eq!(top, ads[..100]);
        assert_eq!(truth.countries.drain(..).map(|row| row.clicks).sum::<u64>(), truth.counted);
        let bounds = (truth.from.take(), truth.to.take());
        let last = by_minute.last_key_value().map(|(minute, _)| adtally_model::time::rfc3339(minute + 60_000));
        assert_eq!(bounds, (Some(DEFAULT_START.to_owned()), last));
        assert_eq!(truth, naive.report, "{format:?} {seed}");
        assert!(truth.late > 0 && truth.duplicate > 0, "{truth:?}");
    }
}

#[test]
fn new_clicks_differ_and_lines_hold_no_stray_newline() {
    let (text, lines) = generate(mixed(Format::Ndjson));
    assert_eq!(text.iter().filter(|&&byte| byte == b'\n').count(), lines.len());
    let ids: Vec<_> =
        lines.iter().filter_map(|line| if let Line::Click(click) = line { click.click_id } else { None }).collect();
    let different: HashSet<_> = ids.iter().collect();
    // All repeated ids are copies, a twentieth of the lines.
    assert_eq!((ids.len(), different.len()), (17_753, 16_873));
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let check = |settings: Settings, expected: &str| {
        let error = Generator::new(settings).map(|_| ()).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(Settings { rate: 0.5, ..settings() }, "--rate");
    check(Settings { rate: f64::NAN, ..settings() }, "--rate");
    check(Settings { ads: 0, ..settings() }, "--ads");
    check(Settings { out_of_order_ms: -1, ..settings() }, "--out-of-order");
    check(Settings { late: 0.6, duplicates: 0.6, ..settings() }, "add up");
    check(Settings { click_ids: 1.5, ..settings() }, "fractions");
    check(Settings { start_ms: 0, ..settings() }, "--start");
    let far = Settings { amount: Amount::Lines(u64::MAX), rate: 1.0, ..settings() };
    assert!(far.end_ms().is_err_and(|error| error.to_string().contains("--clicks")));
}

#[test]
fn fractions_are_read_as_numbers_or_per_cent() {
    let check = |text: &str, expected: Option<f64>| assert_eq!(read_fraction(text).ok(), expected, "{text}");
    check("0.01", Some(0.01));
    check("1%", Some(0.01));
    check("100%", Some(1.0));
    check("0", Some(0.0));
    for text in ["", "1.1", "-0.1", "NaN", "101%", "%", "a"] {
        check(text, None);
    }
}

#[test]
fn the_extremes_of_the_settings_work() {
    for extreme in [
        Settings { ads: 1, rate: 1e9, out_of_order_ms: 0, ..settings() },
        Settings { ads: ADS_MAX, rate: 1.0, ..settings() },
        Settings { duplicates: 1.0, ..settings() },
        Settings { late: 1.0, rate: 1.0, ..settings() },
        Settings { malformed: 1.0, format: Format::Csv, click_ids: 1.0, ..settings() },
        Settings { invalid: 1.0, ..settings() },
    ] {
        let (text, lines) = generate(extreme);
        assert_eq!(lines.len(), 1_000);
        assert!(text.ends_with(b"\n"));
        assert_eq!(report_of(&lines).0.read, 1_000);
    }
}

#[test]
fn a_run_writes_lines_and_truth_and_a_reader_that_leaves_is_no_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: GenerateArgs,
    }
    let folder = tempfile::tempdir().expect("a folder");
    let parse = |more: &[&str]| {
        let truth = folder.path().join("truth.json").display().to_string();
        let words = ["generate", "--lines", "5000", "--duplicates", "10%", "--truth", &truth];
        let command: Command = clap::Parser::try_parse_from(words.iter().chain(more)).expect("valid");
        command.args
    };
    let (mut lines, mut told) = (Vec::new(), 3_818_346_992_376_283_254);
    let report = run(&parse(&[]), &mut lines, &mut |written| told = written).expect("fine").report.expect("asked for");
    assert_eq!((report.read, told), (5_000, 5_000));
    assert_eq!(lines.iter().filter(|&&byte| byte == b'\n').count(), 5_000);
    let text = std::fs::read_to_string(folder.path().join("truth.json")).expect("written");
    assert!(text.starts_with("{\"read\":5000,\"counted\":"), "{text}");
    let counts = std::fs::read_to_string(folder.path().join("truth.counts.csv")).expect("written");
    let sum: u64 = counts.lines().skip(1).filter_map(|row| row.rsplit(',').next()?.parse::<u64>().ok()).sum();
    assert_eq!(sum, report.counted);

    assert!(run(&parse(&[]), &mut Closed, &mut |_| {}).is_err(), "the truth would not be that of what was read");
    let same = parse(&["--output", &folder.path().join("./truth.json").display().to_string()]);
    assert!(
        run(&same, &mut Closed, &mut |_| {}).is_err_and(|error| error.to_string().contains("--output and --truth"))
    );
    let same = parse(&["--output", &folder.path().join("truth.counts.csv").display().to_string()]);
    assert!(
        run(&same, &mut Closed, &mut |_| {}).is_err_and(|error| error.to_string().contains("the counts of --truth"))
    );
    assert_eq!(std::fs::read_to_string(folder.path().join("truth.json")).expect("as it was"), text);

    let quiet = GenerateArgs { truth: None, ..parse(&[]) };
    assert_eq!(run(&quiet, &mut Closed, &mut |_| {}).expect("quiet").report, None);

    let output = folder.path().join("clicks.ndjson");
    let to_file = GenerateArgs { output: Some(output.clone()), ..quiet };
    run(&to_file, &mut Closed, &mut |_| {}).expect("fine");
    assert_eq!(std::fs::read(output).expect("written"), lines);
}
