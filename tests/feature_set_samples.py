"""Feature sets that the tests of store and twin run on, beside the packaged ones."""

from fraudstream.core.feature_set import NINE, FeatureSet, packaged, parse

EVERYTHING_TOML = """
[parameters]
lateness = "3d"
label_delay = "5d"

[features]
customer_count_1d = { entity = "customer", window = "1d", aggregate = "count" }
customer_sum_1d = { entity = "customer", window = "1d", aggregate = "sum" }
customer_mean_7d = { entity = "customer", window = "7d", aggregate = "mean" }
customer_max_7d = { entity = "customer", window = "7d", aggregate = "max" }
customer_min_3d = { entity = "customer", window = "3d", aggregate = "min" }
customer_std_7d = { entity = "customer", window = "7d", aggregate = "std" }
customer_terminals_9d = { entity = "customer", window = "9d", aggregate = "distinct", of = "terminal" }
customer_since_last = { entity = "customer", window = "9d", aggregate = "since_last" }
terminal_count_90m = { entity = "terminal", window = "90m", aggregate = "count" }
terminal_sum_2d = { entity = "terminal", window = "2d", aggregate = "sum" }
terminal_mean_2d = { entity = "terminal", window = "2d", aggregate = "mean" }
terminal_max_12h = { entity = "terminal", window = "12h", aggregate = "max" }
terminal_min_2d = { entity = "terminal", window = "2d", aggregate = "min" }
terminal_std_12d = { entity = "terminal", window = "12d", aggregate = "std" }
terminal_customers_6d = { entity = "terminal", window = "6d", aggregate = "distinct", of = "customer" }
terminal_since_last = { entity = "terminal", window = "2d", aggregate = "since_last" }
amount = { profile = "amount" }
ratio = { entity = "customer", profile = "ratio" }
largest_ratio_7d = { entity = "customer", profile = "largest_ratio", window = "7d" }
largest_ratio_2d = { entity = "customer", profile = "largest_ratio", window = "2d" }
since_last_hot_7d = { entity = "customer", profile = "since_last_hot", window = "7d" }
since_first_hot_2d = { entity = "customer", profile = "since_first_hot", window = "2d" }
run_20d = { entity = "terminal", profile = "confirmed_run", window = "20d" }
run_age_9d = { entity = "terminal", profile = "run_age", window = "9d" }
genuine_before_run_20d = { entity = "terminal", profile = "genuine_before_run", window = "20d" }
run_2d = { entity = "terminal", profile = "confirmed_run", window = "2d" }
since_genuine_9d = { entity = "terminal", profile = "since_genuine", window = "9d" }
terminal_share_7d = { entity = "terminal", profile = "fraud_share", window = "7d" }
terminal_share_1d = { entity = "terminal", profile = "fraud_share", window = "1d" }
customer_share_9d = { entity = "customer", profile = "fraud_share", window = "9d" }
customer_age = { entity = "customer", profile = "age" }
terminal_age = { entity = "terminal", profile = "age" }
"""
EVERYTHING = parse(EVERYTHING_TOML, "everything.toml", "everything")
"""Every kind, on both entities where it can be, in windows of several lengths."""

TERMINALS_ONLY = parse(
    """
[features]
terminal_count_7d = { entity = "terminal", window = "7d", aggregate = "count" }
terminal_max_7d = { entity = "terminal", window = "7d", aggregate = "max" }
""",
    "terminals.toml",
    "terminals",
)
SETS: dict[str, FeatureSet] = {
    "nine": NINE,
    "windows": packaged()["windows"],
    "everything": EVERYTHING,
    "terminals": TERMINALS_ONLY,
}
