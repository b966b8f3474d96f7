"""The settings of all users, under the names by which the field's programs read them."""

from orchestra_strategy.users.settings import UserSettings

__all__ = ["PublicSettings"]


class PublicSettings:
    """Attributes to be read; what a user does is settled when it is made."""

    settings: UserSettings

    @property
    def num_data_points(self) -> int | None:
        """Samples that are used; None for all that the user owns."""
        return self.settings.num_data_points

    @property
    def provide_num_data_points(self) -> bool:
        """Whether the server is told how many samples are used."""
        return self.settings.provide_num_data_points

    @property
    def provide_labels(self) -> bool:
        """Whether the server is told their sorted labels."""
        return self.settings.provide_labels

    @property
    def provide_buffers(self) -> bool:
        """Whether the server is told the model's buffers after training."""
        return self.settings.provide_buffers

    @property
    def provide_local_hyperparams(self) -> bool:
        """Whether the server is told how the local steps went."""
        return self.settings.provide_local_hyperparams

    @property
    def clip_value(self) -> float:
        """Largest L2 norm of an example's gradient; 0 without clipping."""
        return self.settings.privacy.per_example_clipping
