"""Intervals, tests and PGR, in numpy and scipy.

`intervals`: means over seeds and test groups. `gap_recovered`: performance gap recovered (PGR). `paired`: tests of two models,
and Holm's correction. `sample_size`: power, and the seeds that a wanted difference needs. All public names can be imported from
here.

Shape legend: S seeds, G test groups, N test rows. Intervals have a confidence level of 95% unless `level` is given.
"""

from w2s_mlflow.stats.gap_recovered import (
    OK,
    PGR,
    UNDETERMINED,
    Trio,
    near_chance,
    pgr,
    pgr_difference,
    pgr_interval,
    pgr_over_seeds,
)
from w2s_mlflow.stats.intervals import (
    LEVEL,
    ROUNDING,
    ClusteredMean,
    Floats,
    Interval,
    Units,
    clustered,
    clustered_mean,
    group_interval,
    median_interval,
    seed_interval,
    two_way_interval,
)
from w2s_mlflow.stats.paired import PairedTest, TwoWayTest, holm, paired_t_test, two_way_test, wilcoxon_p
from w2s_mlflow.stats.sample_size import ALPHA, POWER, Variances, power, seeds_needed

__all__ = [
    "ALPHA",
    "LEVEL",
    "OK",
    "PGR",
    "POWER",
    "ROUNDING",
    "UNDETERMINED",
    "ClusteredMean",
    "Floats",
    "Interval",
    "PairedTest",
    "Trio",
    "TwoWayTest",
    "Units",
    "Variances",
    "clustered",
    "clustered_mean",
    "group_interval",
    "holm",
    "median_interval",
    "near_chance",
    "paired_t_test",
    "pgr",
    "pgr_difference",
    "pgr_interval",
    "pgr_over_seeds",
    "power",
    "seed_interval",
    "seeds_needed",
    "two_way_interval",
    "two_way_test",
    "wilcoxon_p",
]
