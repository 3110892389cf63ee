"""Command group with a default subcommand."""

import click


class DefaultVerbGroup(click.Group):
    """Group with an optional subcommand: `outrider models payments` is `outrider models list payments`."""

    default_verb = "list"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the default verb unless the first argument is one of the group's verbs or a help option."""
        verb = args[0] if args else ""
        if verb not in self.commands and verb not in ctx.help_option_names:
            args = [self.default_verb, *args]
        return super().parse_args(ctx, args)
