"""What must hold of rendered manifests beyond their schemas. A check yields a sentence for each thing that is wrong."""

from collections.abc import Callable, Iterator

from tests.chart.manifests import Manifests

Check = Callable[[Manifests], Iterator[str]]
