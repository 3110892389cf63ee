"""The command line: a noun with verbs, which lists when no verb follows it."""

import click


class DefaultVerbGroup(click.Group):
    """A group whose first verb may be left out: `outrider models payments` is `outrider models list payments`."""

    default_verb = "list"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default verb in front where none of the group's verbs stands there."""
        verb = args[0] if args else ""
        if verb not in self.commands and verb not in ctx.help_option_names:
            args = [self.default_verb, *args]
        return super().parse_args(ctx, args)
