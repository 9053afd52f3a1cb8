"""Fixed answers of a coordinator, for pages and reports."""

from __future__ import annotations

from gamekeeper.inspection import (
    AttemptRow,
    Attention,
    ChampionRatings,
    EloEstimate,
    EventRow,
    EvidenceRow,
    JobRow,
    LineReport,
    LineRow,
    ModelRow,
    NodeRow,
    PromotionRow,
    PromotionTest,
    Report,
    Status,
    VerdictRow,
    Why,
)

NOW = 1_700_000_000.0
HASH = "3f2a91c4" + "0" * 56


def elo(value: float, low: float, high: float, *pairs: int) -> EloEstimate:
    return EloEstimate(value=value, ci95=(low, high), pairs=list(pairs))


VERDICT = VerdictRow(
    decision=42,
    at=NOW - 3,
    policy="promotion",
    subject="line/connect4",
    reason="undecided",
    sentence="the test goes on",
    acted=False,
    evidence=[
        EvidenceRow(name="llr", value=1.25, limit=2.94, origin="lines.connect4.promotion.alpha"),
        EvidenceRow(name="mirror", value=None, limit=8, origin=""),
    ],
)
EARLIER = VERDICT.model_copy(
    update={
        "decision": 40,
        "at": NOW - 60,
        "acted": True,
        "reason": "promoted",
        "sentence": "the test was won",
    }
)
LINE = LineRow(
    line="connect4",
    champion=4,
    champion_hash=HASH,
    generation=1,
    promotions=1,
    verified_games=1024,
    samples=14336,
    samples_since_training=2048,
    loss=1.9312,
    test=PromotionTest(
        model=7,
        opponent=4,
        pairs=[1, 2, 10, 7, 12],
        llr=1.25,
        lower=-2.94,
        upper=2.94,
        elo=151.0,
        low=80.2,
        high=240.9,
    ),
    stages={"selfplay": {"running": 2}, "train": {"ready": 1, "running": 0}},
    last_verdict=VERDICT,
)
EMPTY_LINE = LineRow(
    line="tictactoe",
    champion=None,
    champion_hash=None,
    generation=None,
    promotions=0,
    verified_games=0,
    samples=0,
    samples_since_training=0,
    loss=None,
    test=None,
    stages={},
    last_verdict=None,
)
STATUS = Status(
    at=NOW,
    verdict="1 thing needs attention",
    healthy=False,
    draining=False,
    attention=[
        Attention(
            subject="node/n-2",
            sentence="not heard for 2 min",
            hint="is the machine up? gamekeeper why node n-2",
        )
    ],
    lines=[LINE],
    slots=2,
    slots_busy=2,
    slot_utilisation=0.9312,
    jobs={"ready": 1, "running": 2, "done": 41, "dead": 0},
    nodes={"up": 1, "lost": 1},
    last_decision=VERDICT,
)
JOB = JobRow(
    id=17,
    kind="evaluate",
    line="connect4",
    purpose="promotion",
    state="running",
    why="granted",
    failures=1,
    losses=0,
    node="n-1a2b",
    attempt=23,
    units=128,
    unit="games",
    created_at=NOW - 75,
    ended_at=None,
)
DONE_JOB = JOB.model_copy(
    update={"id": 9, "kind": "selfplay", "purpose": "", "state": "done", "why": "finished", "ended_at": NOW - 15,
            "failures": 0, "node": None, "attempt": None}
)  # fmt: skip
NODE = NodeRow(
    id="n-1a2b",
    host_name="mill",
    status="up",
    slots=2,
    busy=2,
    last_seen_at=NOW - 4,
    cpu_count=2,
    memory_bytes=25_000_000_000,
    disk_free_bytes=None,
    load=1.96,
)
MODEL = ModelRow(
    id=4,
    line="connect4",
    hash=HASH,
    state="promoted",
    champion=True,
    parent=1,
    steps=500,
    samples=12000,
    loss=1.9312,
    created_at=NOW - 300,
    why="promotion test won",
)
EVENT = EventRow(
    position=812,
    at=NOW - 75,
    name="job-submitted",
    subjects=["job/17", "line/connect4"],
    fields={"job_id": 17, "kind": "evaluate", "line": "connect4", "purpose": "", "hash": HASH},
)
ATTEMPT = AttemptRow(
    id=23,
    job=17,
    node="n-1a2b",
    state="failed",
    reason="data-refused",
    detail="policy holds NaN",
    token=41,
    units=128,
    leased_at=NOW - 70,
    started_at=NOW - 69,
    ended_at=NOW - 30,
)
WHY = Why(
    subject="job/17",
    headline="job 17 evaluate connect4 · running for 30 s",
    facts={"failures": 1, "failures_allowed": 3},
    verdicts=[VERDICT, EARLIER],
    attempts=[ATTEMPT],
    events=[EVENT],
    hint="gamekeeper events --of job/17",
)

RATINGS = [
    ChampionRatings(generation=0, model=1, elo={"random": elo(35, -12, 84, 18, 10, 40, 9, 23)}),
    ChampionRatings(
        generation=1,
        model=4,
        elo={
            "first": elo(260, 210, 318, 2, 3, 14, 19, 62),
            "alphabeta:4": elo(-240, -300, -190, 60, 10, 24, 4, 2),
            "random": elo(480, 400, 600, 0, 1, 3, 7, 89),
            "model:<b>": elo(1, -2, 3, 0, 0, 9, 0, 0),
        },
    ),
]
FOUNDING = PromotionRow(
    generation=0, model=1, previous=None, at=NOW - 500, decision=3, pairs=[], score=None, llr=None, elo0=None,
    elo1=None, alpha=None, beta=None, elo=None,
)  # fmt: skip
PROMOTION = PromotionRow(
    generation=1, model=4, previous=1, at=NOW - 300, decision=41, pairs=[1, 2, 8, 10, 33], score=0.833, llr=3.11,
    elo0=0.0, elo1=50.0, alpha=0.05, beta=0.05, elo=elo(280, 210, 371, 1, 2, 8, 10, 33),
)  # fmt: skip
REPORT = Report(
    lines=[
        LineReport(
            line="connect4",
            promotions=1,
            verified_games=4096,
            samples=61240,
            champion=4,
            champion_hash=HASH,
            elo_vs_random=RATINGS[1].elo["random"],
            elo_vs_first=RATINGS[1].elo["first"],
            elo_vs_alphabeta4=RATINGS[1].elo["alphabeta:4"],
            history=[FOUNDING, PROMOTION],
            ratings=RATINGS,
            losses=[2.41, 2.12, 1.98],
        )
    ],
    jobs={"done": 122, "failed": 0, "hollow": 0, "lost": 1, "cancelled": 3},
    slot_utilisation=0.943,
    seconds=492.3,
    bytes_verified=34_211_004,
    lost_artifacts=0,
    unverified_visible=0,
)
EMPTY_REPORT = Report(
    lines=[
        LineReport(
            line="connect4", promotions=0, verified_games=0, samples=0, champion=None, champion_hash=None,
            elo_vs_random=None, elo_vs_first=None, elo_vs_alphabeta4=None, history=[], ratings=[], losses=[],
        )
    ],
    jobs={},
    slot_utilisation=None,
    seconds=3.0,
    bytes_verified=0,
    lost_artifacts=2,
    unverified_visible=1,
)  # fmt: skip
