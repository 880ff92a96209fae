// What one request costs in workerd whatever it does: the answer is ready, byte for byte the floor's.
export default {
  fetch: (_request, env) => new Response(env.ANSWER, { headers: { "content-type": "application/json" } }),
} satisfies ExportedHandler<{ ANSWER: string }>;
