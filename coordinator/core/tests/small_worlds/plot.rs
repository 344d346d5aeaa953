//! The small worlds that are looked at.

/// Two transactions and what may befall them, each at any point.
pub(crate) struct Plot {
    pub(crate) name: &'static str,
    pub(crate) parts: [Part; 2],
    /// One order is answered with a failure.
    pub(crate) fails: bool,
    /// One step of a saga cannot be done.
    pub(crate) refuses: bool,
    /// How often time passes until something is due.
    pub(crate) passes: u8,
}

/// What a transaction's client and its two agents do.
pub(crate) struct Part {
    pub(crate) timeout: &'static str,
    /// Resource and rows of each branch, and how it wants them; or [`SAGA`] and its plan; or
    /// nothing.
    pub(crate) branches: [&'static str; 2],
    /// The second agent is called when the first has registered, else both at once.
    pub(crate) in_turn: bool,
    pub(crate) ends: Ends,
    pub(crate) exception: Exception,
}

/// How a client ends its transaction when every branch was registered. When one was refused it
/// rolls back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    Commits,
    /// At any point after its begin.
    RollsBack,
    /// It leaves it to its saga.
    Leaves,
}

/// How the line of a saga begins, whose plan follows.
pub(crate) const SAGA: &str = "saga ";

/// What one of the two agents does instead of committing its branch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exception {
    None,
    /// It takes the request of this branch back, at any point.
    GivesUp(usize),
    /// It cannot tell whether this branch has committed.
    Doubts(usize),
}

const COMMITS: Part = Part {
    timeout: "30s",
    branches: ["stock: apple wait 8s local", "orders: o1 wait 8s local"],
    in_turn: true,
    ends: Ends::Commits,
    exception: Exception::None,
};
const CROSSES: Part = Part {
    branches: ["orders: o1 wait 8s local", "stock: apple wait 8s local"],
    ..COMMITS
};
const AT_ONCE: Part = Part {
    in_turn: false,
    ..COMMITS
};
const ROLLS_BACK: Part = Part {
    ends: Ends::RollsBack,
    ..COMMITS
};
/// Two branches of one resource that share a row.
const TWICE: Part = Part {
    branches: [
        "stock: apple, pear wait 8s local",
        "stock: apple wait 8s local",
    ],
    ..COMMITS
};

/// Reads a row and later writes it.
const READS_FIRST: Part = Part {
    branches: [
        "stock: apple shared wait 8s local",
        "stock: apple wait 8s local",
    ],
    ..COMMITS
};
/// Puts two in, then takes one, of which there were none.
const PUTS: Part = Part {
    branches: [
        "stock: apple +2 to 2 wait 8s local",
        "orders: o1 wait 8s local",
    ],
    ..COMMITS
};
const TAKES: Part = Part {
    branches: [
        "stock: apple -1 to 1 wait 8s local",
        "orders: o1 shared wait 8s local",
    ],
    ..COMMITS
};

/// Two promises, and one with a branch of AT.
const PROMISES: Part = Part {
    branches: ["pay in 3PC with \"five\"", "pay in 3PC with \"six\""],
    ..COMMITS
};
const PROMISES_TOO: Part = Part {
    branches: ["stock: apple wait 8s local", "pay in 3PC with \"nine\""],
    ..COMMITS
};

/// One step after the other.
const LINE: Part = Part {
    branches: [
        "saga commits: flight on ship, hotel on ship after flight",
        "",
    ],
    ends: Ends::Leaves,
    ..COMMITS
};
/// Two side by side, and one when both are done.
const SIDE_BY_SIDE: Part = Part {
    branches: [
        "saga commits: flight on ship, hotel on ship, car on ship after flight after hotel",
        "",
    ],
    ..LINE
};
/// A saga beside a branch of AT, in a transaction that its client ends.
const BESIDE: Part = Part {
    branches: [
        "stock: apple wait 8s local",
        "saga : flight on ship attempts 1",
    ],
    ..COMMITS
};
/// Nothing to wait for.
const ALONE: Part = Part {
    branches: ["stock: pear wait 8s local", ""],
    ..COMMITS
};

const fn plot(name: &'static str, parts: [Part; 2]) -> Plot {
    let (fails, refuses, passes) = (false, false, 0);
    Plot {
        name,
        parts,
        fails,
        refuses,
        passes,
    }
}

/// Every one of them is looked at whole.
pub(crate) const PLOTS: &[Plot] = &[
    plot("both commit, locks in the same order", [COMMITS, COMMITS]),
    plot("both commit, locks in crossing order", [COMMITS, CROSSES]),
    plot("both commit, their branches at once", [AT_ONCE, AT_ONCE]),
    plot("one rolls back at any point", [COMMITS, ROLLS_BACK]),
    plot("both read a row and then write it", [READS_FIRST; 2]),
    plot(
        "one takes in escrow what the other put there and rolls back",
        [
            Part {
                ends: Ends::RollsBack,
                ..PUTS
            },
            TAKES,
        ],
    ),
    plot(
        "one with two branches on a row rolls back",
        [
            Part {
                ends: Ends::RollsBack,
                ..TWICE
            },
            TWICE,
        ],
    ),
    plot(
        "a queue for two rows of which one is free",
        [
            Part {
                branches: ["stock: apple wait 8s local", "stock: pear wait 8s local"],
                ..COMMITS
            },
            TWICE,
        ],
    ),
    plot(
        "an agent gives up its first branch",
        [
            Part {
                exception: Exception::GivesUp(0),
                ..COMMITS
            },
            CROSSES,
        ],
    ),
    plot(
        "an agent gives up its second branch on a row",
        [
            Part {
                exception: Exception::GivesUp(1),
                ..TWICE
            },
            COMMITS,
        ],
    ),
    plot(
        "an agent does not know whether it has committed",
        [
            Part {
                exception: Exception::Doubts(1),
                ..COMMITS
            },
            COMMITS,
        ],
    ),
    Plot {
        fails: true,
        ..plot("an order fails", [COMMITS, ROLLS_BACK])
    },
    Plot {
        passes: 1,
        ..plot(
            "promises, one of which may not hear of the commit in time",
            [PROMISES, PROMISES_TOO],
        )
    },
    Plot {
        fails: true,
        ..plot(
            "one promise is taken back, another fails to hear of its commit",
            [
                Part {
                    ends: Ends::RollsBack,
                    ..PROMISES
                },
                PROMISES_TOO,
            ],
        )
    },
    Plot {
        passes: 1,
        ..plot(
            "time passes",
            [
                Part {
                    timeout: "9s",
                    ..COMMITS
                },
                COMMITS,
            ],
        )
    },
    plot(
        "two sagas, one rolled back at any point",
        [
            Part {
                ends: Ends::RollsBack,
                ..LINE
            },
            LINE,
        ],
    ),
    Plot {
        refuses: true,
        ..plot(
            "steps side by side, one cannot be done",
            [SIDE_BY_SIDE, ALONE],
        )
    },
    plot(
        "steps side by side, rolled back at any point",
        [
            Part {
                ends: Ends::RollsBack,
                ..SIDE_BY_SIDE
            },
            ALONE,
        ],
    ),
    Plot {
        fails: true,
        ..plot(
            "a step or its compensation fails, beside a branch of AT",
            [BESIDE, ALONE],
        )
    },
    Plot {
        fails: true,
        ..plot(
            "a saga is rolled back, and an order fails",
            [
                Part {
                    ends: Ends::RollsBack,
                    ..LINE
                },
                ALONE,
            ],
        )
    },
    Plot {
        passes: 2,
        ..plot("time passes for steps", [LINE, ALONE])
    },
];
