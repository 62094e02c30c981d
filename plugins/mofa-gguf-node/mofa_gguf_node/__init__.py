"""MoFA agents as nodes of a dora dataflow, on models in process or in a provider node.

ports       what goes in and out of a node, without dora
envelope    MoFA's message envelope around a text
settings    an agent's options, from its node's environment
tools       Python functions an agent may call
failures    errors of the contract as events, and back
agent       the agent: queries in; answers, streams, vectors, states and errors out
wire        what agents and provider nodes say to each other
remote      the agents' end of it: a provider like any other
pending     a request of theirs under way: replies in order, gaps noticed
service     the provider node's end of it
journal     what it replied, for those who did not hear it
runtime     the dora side: events in, outputs out, an asyncio loop between them
main        the two commands
"""
