//! What the ratios between variants may be at most, in instructions: `./build.sh test --instructions`.

use crate::instructions::Count;

struct Budget {
    of: &'static str,
    against: &'static str,
    most: f64,
}

const BUDGETS: &[Budget] = &[
    // 1.104 with callbacks of our own; the proxy-wasm crate's life cycle takes 1,000 instructions a request more.
    Budget {
        of: "module-full",
        against: "module-floor",
        most: 1.14,
    },
    Budget {
        of: "native-full",
        against: "lua-full-job",
        most: 0.34,
    },
    Budget {
        of: "native-xfp",
        against: "lua-one-liner",
        most: 0.26,
    },
    Budget {
        of: "native-xfp-exact",
        against: "lua-one-liner",
        most: 0.65,
    },
];

/// The variants that a budget is about.
pub(crate) fn variants() -> impl Iterator<Item = &'static str> {
    BUDGETS
        .iter()
        .flat_map(|budget| [budget.of, budget.against])
}

/// Prints each budget and what became of it. Whether all hold.
pub(crate) fn hold(counts: &[Count]) -> bool {
    let above = |name: &str| {
        counts
            .iter()
            .find(|count| count.name == name)
            .map(|count| count.request)
            .expect("the variants of budgets are counted")
    };
    println!();
    let mut all_hold = true;
    for Budget { of, against, most } in BUDGETS {
        let ratio = above(of) / above(against);
        let holds = ratio <= *most;
        all_hold &= holds;
        let verdict = if holds { "holds" } else { "EXCEEDED" };
        println!("budget {of} / {against} {ratio:.3} of {most:.2} {verdict}");
    }
    all_hold
}
