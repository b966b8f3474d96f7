"""SecretFlow's cluster mode on Ray, over our own port.

RayFed (``fed`` 0.2), which connects the parties' Rays, waits without limit for what a peer sends,
ends the process by a signal when a message cannot be sent, and sends an error with its text. Here
it gets proxies that go through :class:`~orchestra_strategy.cluster.members.Members`, so that all is
as without Ray: one port, signs of life, limits, the allow-list, and errors that are told by us.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.cluster.failure import failure_of
from orchestra_strategy.cluster.members import Members
from orchestra_strategy.cluster.post_office import PostOffice
from orchestra_strategy.cluster.proxies import OfficeReceiver, OfficeSender
from orchestra_strategy.errors import HostError, PeerLostError
from orchestra_strategy.host_cluster import FROM_PEERS, failures_told, process_settings_kept
from orchestra_strategy.host_own_ray import load_of_ray

__all__ = ["joined_on_ray"]

# A thousandth of what every node has of its own address: proxies are on this node, as the port is.
_ON_THIS_NODE = 0.001
_POLL = 0.3  # seconds between two looks at whether the job goes on
_MANY = 10_000  # objects that are waited for at the same time


@contextmanager
def joined_on_ray(members: Members, logging_level: str) -> Iterator[None]:
    """Run SecretFlow's production mode, on this process's Ray, for the length of a block.

    Args:
        members: The job's parties, who have agreed to begin.
        logging_level: SecretFlow's.
    """
    fed, ray = load_of_ray("fed"), load_of_ray("ray")
    watch = _Watch(members, ray)
    on_error = True
    with closing(PostOffice(members)) as office:
        try:
            with failures_told(members):
                with process_settings_kept():
                    _start(members, office.path, logging_level)
                fed.api.ray = watch
                _take_over_sending(watch)
                members.liveness.check()
                yield
                on_error = False
        finally:
            fed.api.ray = ray
            _end(wait_for_sending=not on_error)


class _Watch:
    """Ray for RayFed, whose ``get`` ends when the job does.

    Args:
        members: The job's parties.
        ray: The module.
    """

    def __init__(self, members: Members, ray: Any) -> None:
        self._members, self._ray = members, ray
        self._own: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ray, name)

    def get(self, refs: Any) -> Any:
        """Wait for objects; the job's failure is raised in place of what Ray makes of it."""
        waiting = list(dict.fromkeys(refs if isinstance(refs, list) else [refs]))
        while waiting:
            self.check()
            _, waiting = self._ray.wait(waiting, num_returns=len(waiting), timeout=_POLL)
        try:
            return self._ray.get(refs)
        except self._ray.exceptions.RayError as error:
            self.check()
            raise self.plain(error) from None

    def check(self) -> None:
        """Raise why the job cannot go on, if it cannot; what has failed first."""
        self._members.liveness.check()
        if self._own is not None:
            raise self._own

    def note(self, error: BaseException) -> None:
        """Take in an error of this party that a peer would wait for: all are told, and it ends."""
        self._own = self._own or self.plain(error)
        self._members.liveness.fail(failure_of(self._own, self._members.settings.self_party))
        self._members.mailbox.close()

    def plain(self, error: BaseException) -> BaseException:
        """Return the error of a task as it was raised there; Ray's own are a worker's end."""
        kinds = self._ray.exceptions
        while isinstance(error, kinds.RayTaskError):
            error = error.cause
        if not isinstance(error, kinds.RayError):
            return error
        party = self._members.settings.self_party
        lost = PeerLostError(
            f"Expected the worker of {party} to go on, got its end ({type(error).__name__}): its "
            f"process was killed, or the memory of {party}'s machine was not enough."
        )
        lost.party = party
        return lost


def _start(members: Members, office: str, logging_level: str) -> None:
    """Connect RayFed to our port."""
    settings = members.settings
    fed, config = load_of_ray("fed"), load_of_ray("fed.config")
    config._cluster_config = config._job_config = None  # of an earlier session of this process
    stock = fed.init
    fed.init = partial(_connect, stock, office)
    try:
        host.secretflow.init(
            cluster_config={
                # RayFed calls nobody, and would refuse addresses that ours can use.
                "parties": {name: {"address": "localhost"} for name in settings.present},
                "self_party": settings.self_party,
            },
            ray_mode=True,
            logging_level=logging_level,
            job_name=settings.job,
            cross_silo_comm_backend="grpc",
            enable_waiting_for_other_parties_ready=False,
            ignore_reinit_error=True,
        )
    finally:
        fed.init = stock


def _connect(stock: Callable[..., None], office: str, **options: Any) -> None:
    """Be ``fed.init``, with our proxies on this node."""
    here = {f"node:{load_of_ray('ray').util.get_node_ip_address()}": _ON_THIS_NODE}
    comm = {
        **options["config"]["cross_silo_comm"],
        "exit_on_sending_failure": False,
        "expose_error_trace": False,
        "max_concurrency": _MANY,
        "recv_resource_label": here,
        "send_resource_label": here,
    }
    stock(
        **{**options, "config": {**options["config"], "cross_silo_comm": comm}},
        receiver_proxy_cls=partial(OfficeReceiver, office, FROM_PEERS),
        sender_proxy_cls=partial(OfficeSender, office),
    )


def _take_over_sending(watch: _Watch) -> None:
    """Have an object that cannot be computed or sent end the job, in place of being told of."""
    context = load_of_ray("fed._private.global_context").get_global_context()
    context.acquire_shutdown_flag()  # whoever holds it ends the session
    ray = load_of_ray("ray")

    def see_to(message: tuple[Any, ...]) -> bool:
        try:
            sent = ray.get(message[0])
        except ray.exceptions.RayError as error:
            watch.note(error)
        else:
            if not sent:  # most often the job has failed already, and that is what is raised
                watch.note(
                    HostError(
                        f"Expected {message[1]} to take what is sent, got no receipt; the log of "
                        "this party's Ray says why (`SenderProxyActor` in /tmp/ray)."
                    )
                )
        return True

    context.get_cleanup_manager()._process_data_sending_task_return = see_to


def _end(wait_for_sending: bool) -> None:
    # Not ``secretflow.shutdown()``: after an error it would wait for a barrier with peers.
    load_of_ray("fed._private.global_context").clear_global_context(
        wait_for_sending=wait_for_sending
    )
    load_of_ray("fed._private.compatible_utils")._clear_internal_kv()
    with process_settings_kept():
        importlib.import_module("secretflow.distributed").shutdown(on_error=not wait_for_sending)
