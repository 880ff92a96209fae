// The cost of one request in workerd without any work: it answers with a constant, which is the floor's answer.
export default {
  fetch: (_request, env) => new Response(env.ANSWER, { headers: { "content-type": "application/json" } }),
} satisfies ExportedHandler<{ ANSWER: string }>;
