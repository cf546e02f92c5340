export default {
  headers: () => [
    {
      source: '/:path*',
      headers: [{ key: 'content-security-policy', value: process.env.POLICY }],
    },
  ],
};
